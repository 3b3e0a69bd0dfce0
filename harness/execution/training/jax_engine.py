"""The engine for JAX: pure functions compiled with XLA, which take and return all trained state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np

from baselines.augmentation import NUM_COEFFICIENTS
from harness.execution.training.engine_base import (
    EVALUATION_BATCH,
    Floats,
    Images,
    Order,
    scaled,
    transforms_of,
)


class JaxSteps:
    """Runs steps as compiled functions on data on the device; the old state's buffers are donated.

    Args:
        whole_epochs: Compile an epoch as one loop, which is fastest on a GPU. On CPUs XLA runs convolutions many times
            slower within a loop, so there each step is a call.
    """

    name = "compiled+xla"

    def __init__(
        self,
        model: keras.Model,
        train: Images,
        validation: Images,
        batch_size: int,
        *,
        augments: bool = False,
        whole_epochs: bool,
    ) -> None:
        self._model, self._data, self._num_classes = model, train, model.output_shape[-1]
        self.num_wrong: int | None = None
        num_steps = train.num_images // batch_size
        self._steps_a_call = num_steps if whole_epochs else 1
        order = np.zeros((self._steps_a_call, batch_size), np.int32)
        transforms = np.zeros((*order.shape, NUM_COEFFICIENTS if augments else 0), np.float32)
        steps = jax.jit(self.steps, donate_argnums=0)
        self._train = steps.lower(self.state, order, transforms, train.images, train.labels).compile()
        self._predict = jax.jit(self._probabilities)
        self._probabilities_from(validation, 0)

    def train(self, order: Order, transforms: Floats | None = None) -> float:
        transforms = transforms_of(order, transforms)
        state, of_steps = self.state, []
        for start in range(0, len(order), self._steps_a_call):
            part = slice(start, start + self._steps_a_call)
            state, done = self._train(state, order[part], transforms[part], self._data.images, self._data.labels)
            of_steps.append(done)
        for variables, values in zip(self._variables, state, strict=True):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        losses, num_wrong = map(jnp.concatenate, zip(*of_steps, strict=True))
        self.num_wrong = int(num_wrong.sum())
        return float(losses.mean())  # waits for the device

    def predict(self, images: Images, num_images: int) -> Floats:
        starts = range(0, num_images, EVALUATION_BATCH)
        return np.concatenate([self._probabilities_from(images, start) for start in starts])[:num_images]

    @property
    def _variables(self) -> tuple[list[Any], list[Any], list[Any]]:
        model = self._model
        return model.trainable_variables, model.non_trainable_variables, model.optimizer.variables

    @property
    def state(self) -> tuple[list[Any], ...]:
        """All that training changes: weights, other variables of the network, and those of the optimizer."""
        return tuple([variable.value for variable in variables] for variables in self._variables)

    def _probabilities_from(self, images: Images, start: int) -> Floats:
        trainable, others, _ = self.state
        return np.asarray(self._predict(trainable, others, images.images, start))

    def steps(self, state: Any, order: Any, transforms: Any, images: Any, labels: Any) -> Any:
        """The state after a step for each row of `order`, and (losses, numbers of wrong images), each (steps,)."""

        def step(state: Any, batch: Any) -> Any:
            positions, moved_by = batch
            one_hot = jax.nn.one_hot(labels[positions], self._num_classes)
            return self._step(state, scaled(images[positions], moved_by), one_hot)

        return jax.lax.scan(step, state, (order, transforms), unroll=self._steps_a_call == 1)

    def _step(self, state: Any, images: Any, labels: Any) -> Any:
        trainable, others, of_optimizer = state
        differentiate = jax.value_and_grad(self._loss, has_aux=True)
        (loss, (others, num_wrong)), gradients = differentiate(trainable, others, images, labels)
        trainable, of_optimizer = self._model.optimizer.stateless_apply(of_optimizer, gradients, trainable)
        return (list(trainable), list(others), list(of_optimizer)), (loss, num_wrong)

    def _loss(self, trainable: Sequence[Any], others: Sequence[Any], images: Any, labels: Any) -> tuple[Any, Any]:
        predicted, others = self._model.stateless_call(trainable, others, images, training=True)
        num_wrong = (predicted.argmax(-1) != labels.argmax(-1)).sum()
        return self._model.loss(labels, predicted), (others, num_wrong)

    def _probabilities(self, trainable: Sequence[Any], others: Sequence[Any], images: Any, start: Any) -> Any:
        batch = jax.lax.dynamic_slice_in_dim(images, start, EVALUATION_BATCH)
        return self._model.stateless_call(trainable, others, scaled(batch), training=False)[0]
