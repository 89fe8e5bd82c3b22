"""Label losses against sums written out."""

import math

import pytest
import torch

from isometry.functional.labels import cross_entropy, hard_label_loss, soft_label_loss


def softmax(row, temperature=1.0):
    weights = [math.exp(value / temperature) for value in row]
    return [weight / sum(weights) for weight in weights]


STUDENT = [[0.3, -1.2, 2.0], [1.0, 0.0, -0.5]]
TEACHER = [[1.5, 0.2, 0.1], [-0.3, 0.4, 2.2]]


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_soft_labels_equal_equation_5_written_out(temperature):
    expected = 0.0
    for student, teacher in zip(STUDENT, TEACHER, strict=True):
        q, p = softmax(student, temperature), softmax(teacher, temperature)
        expected += sum(t * math.log(t / s) for s, t in zip(q, p, strict=True))
    expected *= temperature**2 / len(STUDENT)
    value = soft_label_loss(torch.tensor(STUDENT), torch.tensor(TEACHER), temperature)
    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_hard_labels_are_the_teachers_decisions():
    expected = -(math.log(softmax(STUDENT[0])[0]) + math.log(softmax(STUDENT[1])[2])) / 2
    assert hard_label_loss(torch.tensor(STUDENT), torch.tensor(TEACHER)).item() == pytest.approx(
        expected, rel=1e-5
    )


def test_cross_entropy_takes_indices_and_the_same_as_probabilities():
    logits, labels = torch.tensor(STUDENT), torch.tensor([2, 0])
    one_hot = torch.nn.functional.one_hot(labels, 3)
    torch.testing.assert_close(cross_entropy(logits, labels), cross_entropy(logits, one_hot))


def test_low_precision_is_computed_in_float32():
    value = soft_label_loss(torch.tensor(STUDENT).bfloat16(), torch.tensor(TEACHER).bfloat16())
    assert value.dtype == torch.float32


def test_a_high_temperature_keeps_the_size_of_the_gradient():
    """τ² makes the gradient tend to a limit instead of 0 (Hinton et al. 2015, section 2.1)."""

    def gradient(temperature):
        student = torch.tensor(STUDENT, requires_grad=True)
        soft_label_loss(student, torch.tensor(TEACHER), temperature).backward()
        return student.grad.norm()

    assert float(gradient(200.0)) == pytest.approx(float(gradient(100.0)), rel=0.02)


@pytest.mark.parametrize("loss", [soft_label_loss, hard_label_loss])
def test_other_classes_are_refused(loss):
    with pytest.raises(ValueError, match="same classes"):
        loss(torch.zeros(2, 3), torch.zeros(2, 4))


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(ValueError, match="positive"):
        soft_label_loss(torch.zeros(2, 3), torch.zeros(2, 3), 0.0)
