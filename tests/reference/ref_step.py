"""CIDer and its two-step update in the plain form: one formula after the other, nothing shared.

The slow twin of ``cider.models.cider``, ``cider.losses`` and ``cider.training.update``; it reads
their parameters and computes what the published code does, as it does it: everything padded as far
as it comes, seven masked copies of the attention weights, one GRU after the other, one classifier
after the other, reconstructions of both views. Padding is masked as in the behaviour ``corrected``.

Shapes: B batch, T text steps, S frames, L fused steps, D width, F feature width, J joint width,
C classes, H heads.
"""

import math

import torch
from ref_fusion import composite_attention
from torch.nn import functional as F

from cider.modality import Modality
from cider.modules.alignment import word_positions
from cider.views import incomplete_view

FRAMES = (Modality.AUDIO, Modality.VISION)


def forward(model, view):
    """Return what ``EmotionModel`` does, by name."""
    text_BTF = model.text_encoder(view.token_ids_BT, view.valid.text)
    joint_BJ, scores_BHLL, valid_BL, reconstruction = backbone(model.backbone, view, text_BTF)
    return {
        "log_probs": head(model.head, joint_BJ),
        "joint": joint_BJ,
        "scores": scores_BHLL,
        "valid": valid_BL,
        "reconstruction": reconstruction,
        "text": text_BTF,
    }


def backbone(net, view, text_BTF):
    """Return joint representation, last scores, which steps are content, reconstructions."""
    config, training = net.config, net.training
    inputs = dict(zip(Modality, (text_BTF, view.audio_BSF, view.vision_BSF), strict=True))
    x = {m: net.projections[m.value](inputs[m].transpose(1, 2)).transpose(1, 2) for m in Modality}
    valid = {m: view.valid[m] for m in Modality}
    if net.align_words:
        words_BT = word_positions(valid[Modality.TEXT])
        for m in FRAMES:
            x[m] = align(net.alignments[m.value], x[Modality.TEXT], x[m], words_BT, valid[m])
        valid = dict.fromkeys(Modality, valid[Modality.TEXT])
    states = {m: net.recurrences[m.value](x[m])[0] for m in Modality}

    lengths = [states[m].shape[1] for m in Modality]
    fused_BLD, starts = torch.cat([states[m] for m in Modality], dim=1), [0]
    for m in FRAMES:
        before = list(Modality)[list(Modality).index(m) - 1]
        starts.append(starts[-1] + net.fused_lengths[before])
    positions = [
        net.positions_ND[begin : begin + n] for begin, n in zip(starts, lengths, strict=True)
    ]
    fused_BLD = F.dropout(fused_BLD + torch.cat(positions), config.embedding_dropout, training)
    valid_BL = torch.cat([valid[m] for m in Modality], dim=1)
    for layer in net.encoder.layers:
        fused_BLD, scores_BHLL = fusion_layer(layer, config, fused_BLD, lengths, valid_BL)
    fused_BLD = net.encoder.norm(fused_BLD)
    fused = dict(zip(Modality, torch.split(fused_BLD, lengths, dim=1), strict=True))

    pooled_BJ = torch.cat([pool(net.pools[m.value], fused[m], valid[m]) for m in Modality], dim=-1)
    hidden_BJ = F.dropout(net.joint_hidden(pooled_BJ).relu(), config.output_dropout, training)
    joint_BJ = net.joint_out(hidden_BJ)
    if config.joint_residual:
        joint_BJ = joint_BJ + pooled_BJ
    frames = [
        rebuild(net.frame_reconstructions[m.value], fused[m], valid[m], inputs[m]) for m in FRAMES
    ]
    return joint_BJ, scores_BHLL, valid_BL, [net.text_reconstruction(fused[Modality.TEXT]), *frames]


def align(part, text_BTD, frames_BSD, words_BT, valid_BS):
    """WSAM (Eq. 4): the mask multiplies the weights once more after the softmax."""
    logits_BTS = part.query(text_BTD) @ part.key(frames_BSD).transpose(1, 2)
    logits_BTS = logits_BTS / math.sqrt(text_BTD.shape[-1])
    weights_BTS = logits_BTS.masked_fill(~valid_BS[:, None, :], -1e30).softmax(dim=-1)
    attend_BTS = (words_BT[:, :, None] & valid_BS[:, None, :]).to(weights_BTS.dtype)
    return part.out((weights_BTS * attend_BTS) @ part.value(frames_BSD))


def fusion_layer(layer, config, x_BLD, lengths, valid_BL):
    """One pre-norm layer (Eq. 13) around seven masked attentions (Eq. 7-12)."""
    training = layer.training
    rate = config.attention_dropout if training else 0.0
    attended_BLD, scores_BHLL = composite_attention(
        layer.attention, layer.attention_norm(x_BLD), lengths, valid_BL, rate
    )
    scores_BHLL = scores_BHLL.masked_fill(~valid_BL[:, None, None, :], -1e30)
    x_BLD = x_BLD + F.dropout(attended_BLD, config.residual_dropout, training)
    hidden = layer.expand(layer.feed_forward_norm(x_BLD)).relu()
    hidden = layer.contract(F.dropout(hidden, config.relu_dropout, training))
    return x_BLD + F.dropout(hidden, config.residual_dropout, training), scores_BHLL


def pool(part, x_BTD, valid_BT):
    """Naive attention (Eq. 14)."""
    scores_BT = part.score(torch.tanh(part.hidden(x_BTD))).squeeze(-1)
    weights_BT = scores_BT.masked_fill(~valid_BT, -1e30).softmax(dim=-1)
    return (weights_BT[:, :, None] * x_BTD).sum(dim=1)


def rebuild(part, x_BTD, valid_BT, frames_BSF):
    """A length map whose weights for steps that are not there meet zeros (Eq. 16)."""
    x_BTD = x_BTD * valid_BT[:, :, None]
    x_BTD = F.pad(x_BTD, (0, 0, 0, part.over_time.in_features - x_BTD.shape[1]))
    hidden_BDS = part.over_time(x_BTD.transpose(1, 2)).relu()
    return part.features(hidden_BDS.transpose(1, 2))[:, : frames_BSF.shape[1]]


def head(part, joint_BJ):
    """Backdoor adjustment class by class (Eq. 20-24)."""
    num_classes = len(part.classifiers)
    prior_C = part.prior_C if part.training else torch.full_like(part.prior_C, 1 / num_classes)
    encoded = []
    for m in Modality:
        features_CF = getattr(part, f"{m.value}_features_CF")
        if not part.training:
            features_CF = features_CF.mean(dim=0, keepdim=True).expand_as(features_CF)
        encoded.append(part.encoders[m.value](features_CF))
    confounder_CE = torch.cat(encoded, dim=-1)
    probs_BC = 0
    for number, classifier in enumerate(part.classifiers):
        row_BE = confounder_CE[number].expand(len(joint_BJ), -1)
        logits_BC = classifier(torch.cat([joint_BJ, row_BE], dim=-1))
        probs_BC = probs_BC + logits_BC.softmax(dim=-1) * prior_C[number]
    return probs_BC.log()


def two_step(model, optimizer, batch, observed, weights, token_ids):
    """Update a model as published, gradients cleared between the steps; return the loss terms."""
    view, labels_B = batch.complete, batch.labels_B
    optimizer.zero_grad()
    complete = forward(model, view)
    task_complete = F.nll_loss(complete["log_probs"], labels_B)
    task_complete.backward()
    optimizer.step()

    optimizer.zero_grad()
    incomplete = forward(model, incomplete_view(view, observed, token_ids))
    terms = distillation(incomplete, complete, view, observed)
    terms["task_incomplete"] = F.nll_loss(incomplete["log_probs"], labels_B)
    terms["total"] = (
        terms["task_incomplete"]
        + weights.reconstruction * terms["reconstruction"]
        + weights.attention * terms["attention"]
        + weights.joint * terms["joint"]
    )
    terms["total"].backward()
    optimizer.step()
    terms["task_complete"] = task_complete
    return {name: float(term.detach()) for name, term in terms.items()}


def distillation(incomplete, complete, view, observed):
    """Return the three terms of Eq. 17-19."""
    targets = (complete["text"].detach(), view.audio_BSF, view.vision_BSF)
    reconstruction = 0
    for m, got, wanted in zip(Modality, incomplete["reconstruction"], targets, strict=True):
        dropped_BT1 = (view.valid[m] & ~observed[m])[:, :, None].to(got.dtype)
        error_BTF = F.smooth_l1_loss(got, wanted, reduction="none") * dropped_BT1
        count = dropped_BT1.sum() * got.shape[-1] + 1e-6
        reconstruction = reconstruction + error_BTF.sum() / count
    scores_BHLL, target_BHLL = incomplete["scores"], complete["scores"].detach()
    divergence_BHLL = F.kl_div(
        scores_BHLL.log_softmax(-1), target_BHLL.log_softmax(-1), reduction="none", log_target=True
    )
    divergence_BHL = divergence_BHLL.sum(-1) * incomplete["valid"][:, None, :]
    attention = divergence_BHL.sum() / (divergence_BHL.shape[0] * divergence_BHL.shape[1])
    cosine_B = F.cosine_similarity(incomplete["joint"], complete["joint"].detach(), dim=-1)
    return {
        "reconstruction": reconstruction,
        "attention": attention,
        "joint": (1 - cosine_B).mean(),
    }
