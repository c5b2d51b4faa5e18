import pytest

from cider.data.import_plan import plan_imports
from cider.errors import StoreError, UsageError


def make_files(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return folder


def planned(folder, **options):
    files = plan_imports(folder, **{"dataset": "mosi", "distribution": "iid", **options})
    return [(str(file.path.relative_to(folder)), file.alignment, file.task) for file in files]


def test_plan_folder_takes_each_alignment(tmp_path):
    make_files(tmp_path, "aligned_50.pkl", "unaligned_50.pkl", "notes.txt", "other.pkl")
    assert planned(tmp_path) == [
        ("aligned_50.pkl", "aligned", "any"),
        ("unaligned_50.pkl", "unaligned", "any"),
    ]
    assert planned(tmp_path, alignment="aligned") == [("aligned_50.pkl", "aligned", "any")]


def test_plan_folder_of_mmsa_downloads_looks_into_processed(tmp_path):
    make_files(tmp_path, "Processed/unaligned_50.pkl", "Raw/unaligned_50.pkl")
    assert planned(tmp_path) == [("Processed/unaligned_50.pkl", "unaligned", "any")]


def test_plan_ood_folder_takes_each_task_or_the_one_asked_for(tmp_path):
    make_files(tmp_path, "binary/MOSI_aligned_50.pkl", "seven/MOSI_aligned_50.pkl")
    assert planned(tmp_path, distribution="ood") == [
        ("binary/MOSI_aligned_50.pkl", "aligned", "three_class"),
        ("seven/MOSI_aligned_50.pkl", "aligned", "seven_class"),
    ]
    assert planned(tmp_path, distribution="ood", task="seven_class") == [
        ("seven/MOSI_aligned_50.pkl", "aligned", "seven_class")
    ]


def test_plan_ood_file_takes_the_task_of_its_folder(tmp_path):
    path = make_files(tmp_path, "binary/MOSI_aligned_50.pkl") / "binary" / "MOSI_aligned_50.pkl"
    (file,) = plan_imports(path, dataset="mosi", distribution="ood")
    assert file.task == "three_class"


@pytest.mark.parametrize(
    ("names", "options", "error", "message"),
    [
        (["other.pkl"], {}, StoreError, "holds no aligned or unaligned feature file"),
        (["aligned_50.pkl"], {"alignment": "unaligned"}, StoreError, "holds no unaligned"),
        (["a_aligned.pkl", "b_aligned.pkl"], {}, UsageError, "are both aligned; name the file"),
        (["aligned_50.pkl"], {"task": "three_class"}, UsageError, "--task is for corpora"),
        (["aligned_50.pkl"], {"distribution": "ood"}, UsageError, "give --task three_class"),
        (["mosi.pkl"], {"distribution": "cross_dataset"}, StoreError, r"lacks mosei\.pkl"),
        (
            ["mosi.pkl"],
            {"distribution": "cross_dataset", "dataset": "mine"},
            UsageError,
            "with --test-from",
        ),
    ],
)
def test_plan_that_does_not_work_out_says_what_to_do(tmp_path, names, options, error, message):
    make_files(tmp_path, *names)
    with pytest.raises(error, match=message):
        planned(tmp_path, **options)


def test_plan_of_nothing_says_there_is_no_file(tmp_path):
    with pytest.raises(StoreError, match="there is no file or folder"):
        plan_imports(tmp_path / "none", dataset="mosi", distribution="iid")


def test_plan_test_from_of_another_distribution_is_refused(tmp_path):
    with pytest.raises(UsageError, match="--test-from is for --distribution cross_dataset"):
        plan_imports(tmp_path, dataset="mosi", distribution="iid", test_from=tmp_path)
