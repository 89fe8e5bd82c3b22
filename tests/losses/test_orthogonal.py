"""The orthogonal projection and the normalisation of the teacher's tokens, against their definitions."""

import pytest
import torch

from isometry.losses.orthogonal import OrthogonalProjection, normalised


def tokens(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3 + 1


@pytest.mark.parametrize(("student", "teacher"), [(5, 9), (9, 5), (6, 6)])
def test_the_projection_stays_orthogonal_while_it_trains(student, teacher):
    torch.manual_seed(0)
    loss = OrthogonalProjection(student, teacher)
    optimizer = torch.optim.AdamW(loss.parameters(), lr=0.1, weight_decay=0.1)
    before = loss.projection.weight.detach().clone()
    for _ in range(20):
        optimizer.zero_grad()
        loss(tokens(4, 3, student), tokens(4, 3, teacher, seed=1)).backward()
        optimizer.step()
    weight = loss.projection.weight.detach()
    narrow = weight.mT @ weight if student <= teacher else weight @ weight.mT
    torch.testing.assert_close(narrow, torch.eye(min(student, teacher)), rtol=0, atol=1e-5)
    assert (weight - before).abs().max() > 0.05


def test_it_is_the_mean_squared_distance_to_standardised_tokens_written_out():
    torch.manual_seed(0)
    loss = OrthogonalProjection(3, 4)
    student, teacher = tokens(2, 5, 3), tokens(2, 5, 4, seed=1)
    rows, wanted = student.reshape(10, 3), teacher.reshape(10, 4)
    projection, total = loss.projection.weight, 0.0
    for channel in range(4):
        values = wanted[:, channel]
        deviation = (values - values.mean()).square().mean().sqrt()
        for row, value in zip(rows, values, strict=True):
            total += (projection[channel] @ row - (value - values.mean()) / deviation) ** 2
    torch.testing.assert_close(loss(student, teacher), total / 40)


def test_a_rotated_copy_of_the_teacher_costs_nothing_once_the_projection_has_turned_back():
    """Tokens that differ by a rotation are equal to it; no other linear change of them is."""
    torch.manual_seed(0)
    teacher = normalised(tokens(64, 6), "whiten")
    rotation = torch.linalg.qr(torch.randn(6, 6)).Q
    if torch.linalg.det(rotation) < 0:
        rotation[0] = -rotation[0]

    def least(student):
        loss = OrthogonalProjection(6, 6, "none")
        optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
        for _ in range(300):
            optimizer.zero_grad()
            value = loss(student[None], teacher[None])
            value.backward()
            optimizer.step()
        return value.item()

    stretched = teacher @ torch.diag(torch.tensor([2.0, 2, 2, 0.1, 0.1, 0.1]))
    assert min(least(teacher @ rotation) for _ in range(2)) < 1e-3
    assert least(stretched) > 0.3


def test_whitening_leaves_no_correlation_and_forgets_what_does_not_vary():
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(200, 3, generator=generator) @ torch.randn(3, 5, generator=generator) + 4
    whitened = normalised(mixed, "whiten")
    covariance = whitened.mT @ whitened / 200
    torch.testing.assert_close(covariance @ covariance, covariance, rtol=1e-3, atol=1e-3)
    assert covariance.trace().item() == pytest.approx(3, rel=1e-3)


@pytest.mark.parametrize("how", ["standardise", "whiten"])
def test_constant_channels_become_zero(how):
    constant = tokens(20, 4)
    constant[:, 1] = 7
    result = normalised(constant, how)
    assert torch.isfinite(result).all()
    assert result[:, 1].abs().max() < 1e-3
    assert normalised(torch.ones(8, 3), how).abs().max() == 0
