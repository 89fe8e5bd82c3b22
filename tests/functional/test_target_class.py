"""NKD and DKD against sums written out."""

import math

import pytest
import torch

from isometry.functional.labels import soft_label_loss
from isometry.functional.target_class import dkd_loss, nkd_loss

STUDENT = [[0.3, -1.2, 2.0, 0.4], [1.0, 0.0, -0.5, -2.0]]
TEACHER = [[1.5, 0.2, 0.1, -0.3], [-0.3, 0.4, 2.2, 1.1]]
LABELS = [0, 2]
GIVEN = torch.tensor(STUDENT), torch.tensor(TEACHER), torch.tensor(LABELS)


def softmax(row, temperature=1.0):
    weights = [math.exp(value / temperature) for value in row]
    return [weight / sum(weights) for weight in weights]


def without(row, place):
    return row[:place] + row[place + 1 :]


def kl(teacher, student):
    return sum(t * math.log(t / s) for t, s in zip(teacher, student, strict=True))


@pytest.mark.parametrize(("temperature", "gamma"), [(1.0, 1.5), (3.0, 0.5)])
def test_nkd_equals_its_equation_written_out(temperature, gamma):
    expected = 0.0
    for student, teacher, label in zip(STUDENT, TEACHER, LABELS, strict=True):
        expected -= softmax(teacher)[label] * math.log(softmax(student)[label]) / 2
        others = (softmax(without(side, label), temperature) for side in (teacher, student))
        expected -= gamma * temperature**2 / 2 * sum(t * math.log(s) for t, s in zip(*others, strict=True))
    assert nkd_loss(*GIVEN, temperature, gamma).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("temperature", "alpha", "beta"), [(1.0, 1.0, 8.0), (4.0, 0.5, 0.0), (2.0, 0.0, 1.0)]
)
def test_dkd_equals_its_equation_written_out(temperature, alpha, beta):
    expected = 0.0
    for student, teacher, label in zip(STUDENT, TEACHER, LABELS, strict=True):
        p, q = softmax(teacher, temperature), softmax(student, temperature)
        target = kl([p[label], 1 - p[label]], [q[label], 1 - q[label]])
        others = kl(*(softmax(without(side, label), temperature) for side in (teacher, student)))
        expected += temperature**2 * (alpha * target + beta * others) / 2
    assert dkd_loss(*GIVEN, temperature, alpha, beta).item() == pytest.approx(expected, rel=1e-5)


def test_dkd_is_kd_where_each_image_weights_the_others_as_its_teacher_does():
    """The decomposition of the paper, eq. 5."""
    student, teacher, labels = GIVEN
    total = torch.stack(
        [
            dkd_loss(
                student[i, None], teacher[i, None], labels[i, None], beta=1 - softmax(TEACHER[i])[LABELS[i]]
            )
            for i in range(2)
        ]
    )
    torch.testing.assert_close(total.mean(), soft_label_loss(student, teacher))


@pytest.mark.parametrize("loss", [nkd_loss, dkd_loss])
def test_probabilities_stand_for_their_largest_class(loss):
    student, teacher, labels = GIVEN
    mixed = torch.tensor([[0.6, 0.1, 0.3, 0.0], [0.3, 0.0, 0.4, 0.3]])
    torch.testing.assert_close(loss(student, teacher, mixed), loss(student, teacher, labels))


def test_an_equal_student_has_no_decoupled_loss_and_the_least_normalised_one():
    _, teacher, labels = GIVEN
    assert dkd_loss(teacher, teacher, labels).item() == pytest.approx(0, abs=1e-6)
    same = teacher.clone().requires_grad_()
    nkd_loss(same, teacher, labels, gamma=1.0).backward()
    others = torch.ones_like(teacher, dtype=torch.bool).scatter(1, labels[:, None], False)
    # The target's part has no minimum; that of the others is least where the normalised others are equal.
    of_target = teacher.clone().requires_grad_()
    nkd_loss(of_target, teacher, labels, gamma=0.0).backward()
    torch.testing.assert_close(same.grad[others], of_target.grad[others])


@pytest.mark.parametrize("loss", [nkd_loss, dkd_loss])
def test_a_certain_teacher_and_a_certain_student_give_finite_values_and_gradients(loss):
    student = torch.tensor([[300.0, 0.0, -300.0]], requires_grad=True)
    value = loss(student, torch.tensor([[-500.0, 500.0, 0.0]]), torch.tensor([0]))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("loss", [nkd_loss, dkd_loss])
def test_low_precision_is_computed_in_float32(loss):
    assert loss(GIVEN[0].bfloat16(), GIVEN[1].bfloat16(), GIVEN[2]).dtype == torch.float32


@pytest.mark.parametrize("loss", [nkd_loss, dkd_loss])
@pytest.mark.parametrize(
    ("shapes", "temperature", "why"),
    [
        (((2, 3), (2, 4)), 1.0, "same classes"),
        (((2, 1), (2, 1)), 1.0, "two classes"),
        (((2, 3), (2, 3)), 0.0, "positive"),
    ],
)
def test_what_can_not_be_is_refused(loss, shapes, temperature, why):
    with pytest.raises(ValueError, match=why):
        loss(*map(torch.zeros, shapes), torch.zeros(2, dtype=torch.long), temperature)
