"""Contrast of the text of a page, by WCAG 2: measured in the browser, all text that is shown."""

__all__ = ("low_contrast",)

#: Text on its background: the first opaque one of its ancestors. AA is 4.5, and 3 for large text.
_MEASURE = """() => {
  const rgba = (colour) => {
    const parts = (colour.match(/[\\d.]+/g) || []).map(Number);
    return parts.length === 3 ? [...parts, 1] : parts;
  };
  const light = ([r, g, b]) => {
    const linear = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    return 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3]));
  const back = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) {
      const colour = rgba(getComputedStyle(e).backgroundColor);
      if (colour[3] > 0) layers.unshift(colour);
      if (colour[3] === 1) break;
    }
    return layers.reduce((below, top) => [...over(top, below), 1], [255, 255, 255, 1]);
  };
  // A letter on a tile has the tile's colour as its outline.
  const ground = (element, style) =>
    style.paintOrder.startsWith("stroke") && style.stroke !== "none"
      ? rgba(style.stroke)
      : back(element);
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, text = walker.currentNode.data.trim();
    if (!text || element.closest("script, style, defs, title, [hidden]")) continue;
    if (!element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    const style = getComputedStyle(element);
    const under = ground(element, style);
    const ink = over(rgba(element instanceof SVGElement ? style.fill : style.color), under);
    const [high, low] = [light(ink), light(under)].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05);
    const size = parseFloat(style.fontSize), bold = Number(style.fontWeight) >= 700;
    const need = size >= 24 || (bold && size >= 18.66) ? 3 : 4.5;
    if (ratio < need) found.push([Number(ratio.toFixed(2)), text.slice(0, 40)]);
  }
  return found;
}"""


def low_contrast(tab):
    """Return the texts of a page that WCAG AA does not accept, each with its ratio."""
    return tab.evaluate(_MEASURE)
