"""A Decision Transformer that learns from shortest solutions, and plays."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DecisionTransformerConfig, DecisionTransformerModel

from examples.sokoban.board import ACTIONS, SOLVED_REWARD, Board
from examples.sokoban.episodes import LONGEST, NO_ACTION, Episode, Sequences, state_of


def build_player(*, size: int, hidden_size: int, layers: int, seed: int) -> DecisionTransformerModel:
    """Return a Decision Transformer with random weights (Chen et al., arXiv 2106.01345).

    Args:
        size: of the boards.
        hidden_size: of the model.
        layers: of the model.
        seed: of its weights.
    """
    torch.manual_seed(seed)
    config = DecisionTransformerConfig(
        state_dim=4 * size * size,
        act_dim=len(ACTIONS),
        hidden_size=hidden_size,
        n_layer=layers,
        n_head=4,
        n_positions=3 * LONGEST,
        max_ep_len=LONGEST,
        action_tanh=False,
    )
    return DecisionTransformerModel(config).eval()


def train_player(
    model: DecisionTransformerModel, episodes: Sequence[Episode], *, steps: int, batch: int, rate: float, seed: int
) -> float:
    """Teach a model the solver's actions, in place, and return the loss of the last hundred steps in nats.

    The episodes of a step are of about one length, so that little of what is computed is padding.

    Args:
        model: to learn.
        episodes: to learn from.
        steps: of the optimiser.
        batch: episodes of a step.
        rate: the highest learning rate.
        seed: of the order and of dropout.
    """
    torch.manual_seed(seed)
    sequences = Sequences.of(sorted(episodes, key=lambda episode: len(episode.actions)))
    batch = min(batch, len(episodes))
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    losses: list[float] = []
    model.train()
    for _ in range(steps):
        first = int(torch.randint(len(episodes) - batch + 1, ()))
        chosen = sequences.rows(torch.arange(first, first + batch))
        logits = model(**chosen.model_inputs).action_preds
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), chosen.actions.flatten(), ignore_index=NO_ACTION)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.item()))
    model.eval()
    return float(np.mean(losses[-100:]))


@torch.inference_mode()
def action_logits(model: DecisionTransformerModel, sequences: Sequences) -> Tensor:
    """Return what a model says at every step of episodes the solver played, (episodes, steps, actions)."""
    logits: Tensor = model(**sequences.model_inputs).action_preds
    return logits


@torch.inference_mode()
def play(
    model: DecisionTransformerModel, boards: Sequence[Board], *, wanted: float
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Let a model play boards, always by its likeliest action, for at most `LONGEST` steps.

    Args:
        model: to play.
        boards: where it begins.
        wanted: the return it is asked for.

    Returns:
        Which boards it solved, (boards,), and the return of each, (boards,).
    """
    current, won = list(boards), np.zeros(len(boards))
    states = torch.zeros(len(boards), LONGEST, state_of(boards[0]).numel())
    actions = torch.full((len(boards), LONGEST), NO_ACTION)
    to_go = torch.zeros(len(boards), LONGEST, 1)
    for step in range(LONGEST):
        playing = [index for index, board in enumerate(current) if not board.is_solved]
        if not playing:
            break
        states[playing, step] = torch.stack([state_of(current[index]) for index in playing])
        to_go[playing, step, 0] = torch.from_numpy((wanted - won[playing]) / SOLVED_REWARD).float()
        read = Sequences(states[playing, : step + 1], actions[playing, : step + 1], to_go[playing, : step + 1])
        inputs = {**read.model_inputs, "attention_mask": torch.ones(len(playing), step + 1, dtype=torch.long)}
        chosen = model(**inputs).action_preds[:, -1].argmax(-1)
        actions[playing, step] = chosen
        for index, action in zip(playing, chosen.tolist(), strict=True):
            after = current[index].after(action)
            won[index] += current[index].reward_of(after)
            current[index] = after
    return np.array([board.is_solved for board in current]), won
