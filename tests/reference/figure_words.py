"""Where the words of a matplotlib figure lie: inside it, and not upon each other."""

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text


def boxes_of(figure):
    """Return the visible texts of a figure with the rectangles they cover, in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    # matplotlib keeps ticks beyond both ends of an axis, and does not draw them.
    hidden = {
        id(label)
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in axis.get_major_ticks()
        for label in (tick.label1, tick.label2)
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
    }
    return [
        (text.get_text(), text.get_window_extent(canvas.get_renderer()))
        for text in figure.findobj(Text)
        if text.get_text().strip() and text.get_visible() and id(text) not in hidden
        if text.axes is None or text.axes.get_visible()
    ]


def area_in_common(one, other):
    """Return the area of two rectangles' intersection."""
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return max(0.0, width) * max(0.0, height)


def outside(figure):
    """Return the texts that leave the figure."""
    page = figure.bbox
    return [
        word
        for word, box in boxes_of(figure)
        if box.x0 < 0 or box.x1 > page.x1 or box.y0 < 0 or box.y1 > page.y1
    ]


def overlapping(figure):
    """Return pairs of texts that lie upon each other."""
    boxes = boxes_of(figure)
    return [
        (one, other)
        for index, (one, box) in enumerate(boxes)
        for other, rival in boxes[index + 1 :]
        if area_in_common(box, rival) > 1
    ]
