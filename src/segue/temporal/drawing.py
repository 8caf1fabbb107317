"""A drawing of the tree, as SVG: steps from left to right, positions from top to bottom."""

from __future__ import annotations

from xml.sax.saxutils import escape

from segue.temporal.tree import Node, Tree

WIDTH, ROW, MARGIN, LABELS = 900.0, 16.0, 46.0, 150.0


def draw(tree: Tree, steps: int, names: list[str]) -> str:
    """The tree as an SVG document.

    Args:
        tree: what to draw.
        steps: length of the schedule.
        names: one label per key.
    """
    order = sorted(range(len(tree.nodes)), key=lambda i: tree.nodes[i].position)
    places = sorted({round(node.position, 6) for node in tree.nodes})
    height = 2 * MARGIN + ROW * max(len(places) - 1, 8)
    unit = (WIDTH - MARGIN - LABELS) / steps

    def x(step: float) -> float:
        return LABELS + step * unit

    def y(node: Node) -> float:
        return MARGIN + (height - 2 * MARGIN) * places.index(round(node.position, 6)) / max(len(places) - 1, 1)

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:g} {height:g}" font-family="sans-serif" '
        'font-size="11">',
        f'<rect width="{WIDTH:g}" height="{height:g}" fill="#fdfcf8"/>',
    ]
    for step in sorted({0, steps, *(node.step for node in tree.nodes)}):
        lines.append(f'<path d="M{x(step):.1f} {MARGIN - 16:g}V{height - MARGIN + 16:.1f}" stroke="#e3dfd3"/>')
        lines.append(f'<text x="{x(step):.1f}" y="{height - 14:.1f}" text-anchor="middle" fill="#8a8575">{step}</text>')
    for name in order:
        node = tree.nodes[name]
        for parent in node.parents or ():
            lines.append(
                f'<path d="M{x(node.step):.1f} {y(tree.nodes[parent]):.1f}V{y(node):.1f}" '
                'stroke="#d9a441" stroke-width="0.8" fill="none" opacity="0.7"/>'
            )
    for name in order:
        node = tree.nodes[name]
        end = steps if node.stop is None else node.stop
        color, width = ("#b3362a", 2.4) if node.is_key else ("#2f6690" if node.is_frame else "#9db4c0", 1.4)
        lines.append(
            f'<path d="M{x(node.step):.1f} {y(node):.1f}H{x(end):.1f}" stroke="{color}" stroke-width="{width:g}"/>'
        )
        if node.is_frame:
            lines.append(f'<circle cx="{x(end):.1f}" cy="{y(node):.1f}" r="2.6" fill="{color}"/>')
        if node.is_key:
            label = escape(names[name][:24])
            lines.append(f'<text x="8" y="{y(node) + 4:.1f}" fill="#333">{label}</text>')
    lines.append(f'<text x="{WIDTH - 8:g}" y="{height - 14:.1f}" text-anchor="end" fill="#8a8575">steps</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"
