"""What a gain costs, for people: drift from the base, and a few texts that go on before and after."""

from strop.runs import Price


def price_lines(price: Price | None, *, continuations: bool = True) -> list[str]:
    """Return what a choice costs, in lines: figures, a verdict, and texts before and after.

    Args:
        price: of a finished run; None in what an older version wrote.
        continuations: show the texts too.
    """
    if price is None:
        return []
    if price.drift is None:
        return [f"Price: not known. {price.reason}"]
    lines = [f"Price: {price.drift}.", f"  It {price.drift.verdict}."]
    if continuations and not price.drift.identical:
        for each in price.continuations:
            lines += [f"  {each.prompt}", f"    before: {each.base}", f"    after:  {each.edited}"]
    return lines
