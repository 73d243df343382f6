"""Addresses as people write them."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strop.anatomy import MatrixType, Stack, Stream, StreamSite, WeightSite, parse_layers
from strop.anatomy.sites import ATTENTION
from strop.errors import SiteError, UsageError

ATTENTION_TYPES = sorted(ATTENTION)
INDICES = st.none() | st.integers(0, 200)
STACKS = st.none() | st.sampled_from(Stack)
WEIGHT_SITES = st.builds(
    WeightSite, st.integers(0, 200), st.sampled_from(ATTENTION_TYPES), head=INDICES, expert=INDICES, stack=STACKS
) | st.builds(WeightSite, st.integers(0, 200), st.sampled_from(MatrixType), expert=INDICES, stack=STACKS)
STREAM_SITES = st.builds(StreamSite, st.integers(0, 200), st.sampled_from(Stream), stack=STACKS)


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
    assert str(WeightSite(3, MatrixType.UP, stack=Stack.ENCODER)) == "encoder layer 3 up"
    assert str(StreamSite(3, Stream.MLP, stack=Stack.DECODER)) == "decoder layer 3 mlp"


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


@given(WEIGHT_SITES)
def test_a_weights_address_comes_back_from_a_recipes_entry_whole(site: WeightSite) -> None:
    assert WeightSite.from_json(json.loads(json.dumps(site.to_json()))) == site


@given(STREAM_SITES)
def test_a_streams_address_comes_back_from_a_recipes_entry_whole(site: StreamSite) -> None:
    assert StreamSite.from_json(json.loads(json.dumps(site.to_json()))) == site


def test_an_entry_names_only_what_is_set() -> None:
    assert list(WeightSite(3, MatrixType.KEY, head=1).to_json().items()) == [
        ("layer", 3), ("matrix_type", "key"), ("head", 1),
    ]  # fmt: skip
    assert WeightSite(3, MatrixType.UP).to_json() == {"layer": 3, "matrix_type": "up"}
    assert StreamSite(3).to_json() == {"layer": 3, "stream": "block"}
    assert WeightSite(3, MatrixType.UP, expert=0, stack=Stack.ENCODER).to_json() == {
        "layer": 3, "matrix_type": "up", "expert": 0, "stack": "encoder",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "error", "complaint"),
    [
        ({"layer": "3"}, UsageError, "its layer is '3', not a whole number"),
        ({"layer": True}, UsageError, "its layer is True, not a whole number"),
        ({"head": 1.0}, UsageError, r"its head is 1\.0, not a whole number"),
        ({"expert": "all"}, UsageError, "its expert is 'all', not a whole number"),
        ({"expert": -1}, SiteError, "An expert is counted from 0; -1 is not one"),
        ({"stack": "side"}, SiteError, "'side' is not a stack of blocks; choose among encoder, decoder, vision, cross"),
    ],
)
def test_an_entry_that_names_no_address_is_refused_by_its_key(
    change: dict[str, object], error: type[Exception], complaint: str
) -> None:
    with pytest.raises(error, match=complaint):
        WeightSite.from_json({"layer": 3, "matrix_type": "key", **change})


@given(st.lists(WEIGHT_SITES, max_size=6))
def test_any_addresses_can_be_put_in_order_and_only_equal_ones_tie(sites: list[WeightSite]) -> None:
    ordered, backwards = sorted(sites), sites[::-1]
    assert ordered == sorted(backwards)
    assert all((one < other) != (one == other) for one, other in itertools.pairwise(ordered))


@given(st.lists(STREAM_SITES, max_size=6))
def test_streams_are_ordered_as_matrices_are(sites: list[StreamSite]) -> None:
    ordered, backwards = sorted(sites), sites[::-1]
    assert ordered == sorted(backwards)
    assert [site.layer for site in ordered if site.stack is None] == sorted(s.layer for s in sites if s.stack is None)


def test_experts_and_stacks_are_matrices_of_their_own() -> None:
    dense, one, other = (WeightSite(1, MatrixType.UP, expert=expert) for expert in (None, 0, 1))
    encoder = WeightSite(1, MatrixType.UP, stack=Stack.ENCODER)
    assert len({dense, one, other, encoder}) == 4
    for mine, theirs in itertools.combinations((dense, one, other, encoder), 2):
        assert not mine.overlaps(theirs)
        assert not theirs.overlaps(mine)


@pytest.mark.parametrize("stack", [None, *Stack])
def test_what_writes_a_stream_is_in_its_stack(stack: Stack | None) -> None:
    assert StreamSite(2, Stream.ATTENTION, stack=stack).writer == WeightSite(2, MatrixType.OUTPUT, stack=stack)
    assert StreamSite(2, stack=stack).writer == WeightSite(2, MatrixType.DOWN, stack=stack)
