"""Addresses as people write them."""

import pytest

from strop.anatomy import MatrixType, WeightSite, parse_layers
from strop.errors import SiteError


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("all", (0, 1, 2, 3, 4, 5, 6, 7)),
        (" all ", (0, 1, 2, 3, 4, 5, 6, 7)),
        ("0", (0,)),
        ("7", (7,)),
        ("2-4", (2, 3, 4)),
        ("3-3", (3,)),
        ("5,1", (1, 5)),
        ("0, 4-6 ,5", (0, 4, 5, 6)),
    ],
)
def test_layers_are_numbers_ranges_and_lists_of_them(text: str, layers: tuple[int, ...]) -> None:
    assert parse_layers(text, 8) == layers


@pytest.mark.parametrize(
    "text", ["", ",", "one", "-1", "1-", "1--2", "1.5", "1,", "2-4-6", "last", "²", "1 2", "ALL the layers"]
)
def test_a_text_that_names_no_layers_is_refused_with_the_forms_there_are(text: str) -> None:
    with pytest.raises(SiteError) as caught:
        parse_layers(text, 8)
    assert f"'{text}' does not name layers; write them as 20-29, as 0,4,8 or as all" in str(caught.value)


@pytest.mark.parametrize("text", ["8", "6-8", "0,12", "0-999999999999"])
def test_a_layer_the_model_has_not_is_refused_with_the_layers_it_has(text: str) -> None:
    with pytest.raises(SiteError, match=rf"'{text}' names a layer this model has not: it has layers 0 to 7"):
        parse_layers(text, 8)


@pytest.mark.parametrize("text", ["5-3", "1,5-3"])
def test_a_range_written_backwards_is_refused_as_such(text: str) -> None:
    with pytest.raises(SiteError, match="the range 5-3 runs backwards; write 3-5"):
        parse_layers(text, 8)


@pytest.mark.parametrize("matrix_type", list(MatrixType))
def test_every_matrix_type_is_read_back_from_its_name(matrix_type: MatrixType) -> None:
    assert MatrixType.parse(str(matrix_type)) is matrix_type
    assert MatrixType.parse(f" {str(matrix_type).upper()} ") is matrix_type


@pytest.mark.parametrize("text", ["lm_head", "LM_HEAD", "embed_tokens", "wte"])
def test_embeddings_and_the_lm_head_are_refused_as_what_they_are(text: str) -> None:
    with pytest.raises(
        SiteError, match=rf"'{text}' cannot be edited: embeddings and the LM head .* choose among query"
    ):
        MatrixType.parse(text)


def test_a_word_that_is_no_matrix_type_is_refused_with_those_there_are() -> None:
    with pytest.raises(
        SiteError, match="'fc_in' is not a matrix type; choose among query, key, value, output, gate, up"
    ):
        MatrixType.parse("fc_in")


def test_a_site_reads_as_words() -> None:
    assert str(WeightSite(28, MatrixType.UP)) == "layer 28 up"
    assert str(WeightSite(3, MatrixType.KEY, head=1)) == "layer 3 key head 1"
    assert str(WeightSite(3, MatrixType.UP, expert=2)) == "layer 3 up expert 2"


def test_a_matrix_overlaps_its_heads_and_heads_only_themselves() -> None:
    whole, one, other = (WeightSite(1, MatrixType.KEY, head=head) for head in (None, 0, 1))
    assert whole.overlaps(one)
    assert one.overlaps(whole)
    assert one.overlaps(one)
    assert not one.overlaps(other)
    assert not whole.overlaps(WeightSite(2, MatrixType.KEY))
    assert not whole.overlaps(WeightSite(1, MatrixType.VALUE))


def test_layer_2_is_not_layer_12() -> None:
    assert WeightSite(2, MatrixType.UP) != WeightSite(12, MatrixType.UP)
    assert WeightSite(2, MatrixType.UP) < WeightSite(12, MatrixType.UP)
