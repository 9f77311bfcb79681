"""Exact selection by sorting, and random problems for it."""

import torch
from hypothesis import strategies as st

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
# Few different values, for many ties; zeros of both signs, subnormals, infinities.
VALUES = st.sampled_from(
    [0.0, -0.0, 1e-7, -1e-7, 1e-42, 0.5, -0.5, 1.0, 1.0005, 2.0, -3.0, float("inf"), float("-inf")]
)


def smallest_by_sorting(scores, alive, k, magnitude):
    """The definition: sort (score, tensor, position) of the survivors, remove the first k."""
    triples = [
        (abs(value) if magnitude else value, tensor, position)
        for tensor, (score, mask) in enumerate(zip(scores, alive, strict=True))
        for position, (value, lives) in enumerate(
            zip(score.flatten().tolist(), mask.flatten().tolist(), strict=True)
        )
        if lives
    ]
    expected = [mask.flatten().clone() for mask in alive]
    for _, tensor, position in sorted(triples)[:k]:
        expected[tensor][position] = False
    return [mask.view(score.shape) for mask, score in zip(expected, scores, strict=True)]


@st.composite
def problems(draw):
    shapes = draw(st.lists(st.sampled_from([(1,), (3,), (2, 3), (4, 1, 2), (0,), (7, 5)]), min_size=1, max_size=4))
    scores, alive = [], []
    for shape in shapes:
        size = torch.Size(shape).numel()
        dtype = draw(st.sampled_from(DTYPES))
        score = torch.tensor(draw(st.lists(VALUES, min_size=size, max_size=size)), dtype=dtype).view(shape)
        transposed = draw(st.booleans())  # not contiguous, like weights in channels_last
        scores.append(score.transpose(0, -1).contiguous().transpose(0, -1) if transposed else score)
        alive.append(
            torch.tensor(draw(st.lists(st.booleans(), min_size=size, max_size=size)), dtype=torch.bool).view(shape)
        )
    k = draw(st.integers(0, sum(int(mask.sum()) for mask in alive)))
    return scores, alive, k
