"""tools/convert_adapter.py: which tensors it takes from what a pickle held. Runs without torch."""

import sys
import unittest
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import convert_adapter  # noqa: E402


def tensor():
    return SimpleNamespace(shape=(2, 3), dtype="float32")


class ConvertAdapter(unittest.TestCase):
    def test_takes_a_flat_state_dict_as_it_is(self):
        state = {"text_model.transformer.h.0.mixer.Wqkv.A": tensor(), "text.blocks.0.mlp.fc1.B": tensor()}
        self.assertEqual(convert_adapter.adapter_tensors(state), state)

    def test_unwraps_the_state_of_a_fine_tune(self):
        state = {"text_lora.dense.0.up_a": tensor()}
        loaded = {"lora_state_dict": state, "step": 7}
        self.assertEqual(convert_adapter.adapter_tensors(loaded), state)

    def test_leaves_out_second_names(self):
        loaded = {name: tensor() for name in ("text_lora.dense.0.up_a", "_text.dense.0.up_a", "_text.dense.0.up_b")}
        self.assertEqual(sorted(convert_adapter.adapter_tensors(loaded)), ["_text.dense.0.up_b", "text_lora.dense.0.up_a"])

    def test_refuses_what_is_no_tensor(self):
        for loaded, said in (([1], "a list"), ({"a": 1}, "a is a int"), ({}, "no tensors")):
            with self.assertRaisesRegex(ValueError, said):
                convert_adapter.adapter_tensors(loaded)


if __name__ == "__main__":
    unittest.main()
