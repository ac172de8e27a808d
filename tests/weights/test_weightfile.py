from __future__ import annotations

import argparse
import os
import pickle
import random
import struct
import sys
import warnings
import zipfile
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vitfeat.errors import ModelError
from vitfeat.weights.weightfile import read_weight_file

# --- Files of every kind ---


def _weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "a.weight": torch.randn(4, 5, generator=generator),
        "a.half": torch.randn(7, generator=generator).half(),
        "b.count": torch.arange(6).reshape(2, 3),
        "b.scalar": torch.tensor(2.5),
        "b.none": torch.zeros(0, 3),
    }


class _Tower(nn.Module):
    """A module of everything that state dicts hold, and of attributes that they do not."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.stack = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3).half())
        self.tied = nn.Linear(3, 3)
        self.tied.weight = self.first.weight
        self.transposed = nn.Parameter(torch.randn(3, 5).t())
        self.brain = nn.Parameter(torch.randn(4).bfloat16(), requires_grad=False)
        base = torch.arange(20.0)
        self.register_buffer("middle", base[3:9])
        self.register_buffer("strided", base[::2].view(2, 5))
        self.register_buffer("expanded", torch.ones(1, 4).expand(3, 4))
        self.register_buffer("flags", torch.tensor([True, False]))
        self.register_buffer("empty", torch.zeros(0, 2))
        self.register_buffer("wave", torch.ones(2, dtype=torch.complex64))
        self.constant = torch.full((2,), 9.0)
        self.sizes = [1, 2]
        self.rates = [0.5]
        self.switches = [True]
        self.maps = [torch.ones(2)]
        self.named = {"x": torch.ones(2)}

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.tied(self.stack[0](self.first(x))))
        x = x * self.sizes[0] * self.rates[0] * float(self.switches[0]) * self.maps[0][0]
        return x * self.middle.sum() * self.constant.sum() * self.named["x"][0]


def _scripted(path: Path, module: nn.Module | None = None) -> Any:
    """Save a scripted module and give it back."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        scripted = torch.jit.script((module or _Tower()).eval())
        scripted.save(str(path))
    return scripted


_WRITERS: dict[str, Callable[[Path], Any]] = {
    "safetensors": lambda path: save_file(_weights(), path),
    "npz": lambda path: _save_npz(path, {k: v.numpy() for k, v in _weights().items()}),
    "zip": lambda path: torch.save(_weights(), path),
    "legacy": lambda path: torch.save(_weights(), path, _use_new_zipfile_serialization=False),
    "torchscript": lambda path: _scripted(path),
}


def _save_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    with path.open("wb") as file:  # NumPy adds a suffix to names
        np.savez(file, **arrays)


def _error(path: Path) -> str:
    with pytest.raises(ModelError) as info:
        read_weight_file(path)
    message = str(info.value)
    assert message.startswith(f"{path} ")
    assert "weights_only" not in message, "PyTorch's advice to run what the file says"
    return message


def _equal(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    assert sorted(found) == sorted(wanted)
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype, name
        assert found[name].shape == tensor.shape, name
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("suffix", ["pth", "safetensors", "npz", "pth.tar", "none"])
@pytest.mark.parametrize("kind", ["safetensors", "npz", "zip", "legacy"])
def test_every_kind_under_every_name(tmp_path: Path, kind: str, suffix: str) -> None:
    path = tmp_path / f"w.{suffix}"
    _WRITERS[kind](path)
    _equal(read_weight_file(path), _weights())


def test_files_are_mapped_not_copied(tmp_path: Path) -> None:
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("needs Linux's list of mapped files")
    for kind in ("zip", "torchscript", "safetensors"):
        path = tmp_path / f"{kind}.bin"
        _WRITERS[kind](path)
        content = read_weight_file(path)
        assert str(path) in maps.read_text(), kind
        for tensor in content.values():
            tensor.zero_()  # the memory is ours, not the file's
        again = read_weight_file(path)
        assert any(tensor.any() for tensor in again.values()), kind


def test_a_compressed_archive_of_torch_save(tmp_path: Path) -> None:
    torch.save(_weights(), tmp_path / "w.pth")
    for compression, padding in [(zipfile.ZIP_DEFLATED, ""), (zipfile.ZIP_STORED, "pad")]:
        path = _rewritten(tmp_path / "w.pth", compression=compression, first=padding)
        _equal(read_weight_file(path), _weights())


# --- npz ---


def test_googles_names_and_types(tmp_path: Path) -> None:
    brain = torch.randn(3, 4).bfloat16()
    arrays = {
        "Transformer/encoderblock_0/LayerNorm_0/bias": np.arange(4, dtype=np.float16),
        "embedding/kernel": brain.view(torch.int16).numpy().view("V2"),
        "big": np.arange(3, dtype=">f4"),
        "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    }
    _save_npz(tmp_path / "w.npz", arrays)
    found = read_weight_file(tmp_path / "w.npz")
    assert torch.equal(found["embedding/kernel"], brain)
    assert found["embedding/kernel"].dtype == torch.bfloat16
    assert found["Transformer/encoderblock_0/LayerNorm_0/bias"].dtype == torch.float16
    assert found["big"].tolist() == [0, 1, 2]
    assert found["columns"].tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.array(["a", "b"]), "of the type <U1"),
        (np.zeros(2, "V3"), "of the type |V3"),
        (np.zeros(2, [("x", "i1"), ("y", "i1")]), "of the type [('x', 'i1'), ('y', 'i1')]"),
        (np.zeros(2, np.longdouble), "of the type float128"),
    ],
)
def test_arrays_that_are_no_tensors(tmp_path: Path, array: Any, reason: str) -> None:
    _save_npz(tmp_path / "w.npz", {"good": np.ones(2), "bad": array})
    assert f"holds 'bad', which is {reason} and cannot be a tensor" in _error(tmp_path / "w.npz")


def test_members_that_are_no_arrays(tmp_path: Path) -> None:
    _save_npz(tmp_path / "w.npz", {"good": np.ones(2)})
    with zipfile.ZipFile(tmp_path / "w.npz", "a") as archive:
        archive.writestr("notes.txt", "hello")
    assert "holds 'notes.txt', which is no array" in _error(tmp_path / "w.npz")


# --- Pickles: what old scripts saved beside the weights ---


def _rich() -> dict[str, Any]:
    options = argparse.Namespace(lr=1e-3, output=Path("runs") / "a", nested=argparse.Namespace(n=1))
    return {
        "model": _weights(),
        "args": options,
        "best": np.float64(76.25),
        "big": _numpy_scalar_of(
            ("f4",), (3, ">", None, None, None, -1, -1, 0), data=np.array(2.5, ">f4").tobytes()
        ),
        "step": np.int64(7),
        "done": np.bool_(True),
        "name": np.str_("vit"),
        "kind": np.dtype("float32"),
    }


@pytest.mark.parametrize("module", ["numpy.core", "numpy._core"])
@pytest.mark.parametrize("zipped", [True, False])
def test_what_training_scripts_saved(tmp_path: Path, zipped: bool, module: str) -> None:
    path = tmp_path / "w.pth"
    torch.save(_rich(), path, _use_new_zipfile_serialization=zipped)
    if zipped:
        old = np.float64(0).__reduce__()[0].__module__.removesuffix(".multiarray").encode()
        _change(path, lambda data: data.replace(b"c" + old + b".", f"c{module}.".encode()))
    content = read_weight_file(path)
    _equal(content["model"], _weights())
    assert content["args"].lr == 1e-3
    assert content["args"].output == PurePosixPath("runs/a")
    assert content["args"].nested == argparse.Namespace(n=1)
    assert type(content["args"]) is argparse.Namespace
    expected = {"best": 76.25, "big": 2.5, "step": 7, "done": True, "name": "vit"}
    assert {key: content[key] for key in expected} == expected
    assert isinstance(content["best"], np.float64)


def test_a_path_of_the_file_cannot_touch_the_disk(tmp_path: Path) -> None:
    torch.save({"path": tmp_path}, tmp_path / "w.pth")
    path = read_weight_file(tmp_path / "w.pth")["path"]
    assert isinstance(path, PurePosixPath)
    assert not isinstance(path, Path)


def test_numpys_own_constructors_are_never_called(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A made-up dtype would make NumPy read memory that is not the file's."""
    torch.save(_rich(), tmp_path / "w.pth")
    seen = []
    module, name = "vitfeat.weights.torchsave", "np.frombuffer"
    original = np.frombuffer
    monkeypatch.setattr(
        f"{module}.{name}", lambda data, kind: (seen.append(kind), original(data, kind))[1]
    )
    read_weight_file(tmp_path / "w.pth")
    assert {str(kind) for kind in seen} == {"float64", ">f4", "int64", "bool", "<U3"}


class _Call:
    """Pickles as a call, and maybe a state to set on what it returns."""

    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def _numpy_scalar_of(*dtype: Any, data: Any = b"12345678") -> _Call:
    return _Call(np.float64(0).__reduce__()[0], (_Call(np.dtype, *dtype), data))


@pytest.mark.parametrize(
    ("scalar", "reason"),
    [
        (_numpy_scalar_of(("O",)), "a NumPy value of the type 'O'"),
        (_numpy_scalar_of(("V8",)), "a NumPy value of the type 'V8'"),
        (_numpy_scalar_of(("f8",), (3, "O", None, None, None, -1, -1, 0)), "byte order 'O'"),
        (_numpy_scalar_of(("f8",), data=b"1234"), "buffer size must be"),
        (_numpy_scalar_of(("f4",)), "too many values"),
        (_Call(np.float64(0).__reduce__()[0], (5, b"12345678")), "scalar without a type"),
    ],
)
def test_made_up_numpy_scalars(tmp_path: Path, scalar: _Call, reason: str) -> None:
    torch.save({"w": torch.ones(2), "x": scalar}, tmp_path / "w.pth")
    message = _error(tmp_path / "w.pth")
    assert "is not a readable weight file" in message
    assert reason in message


def test_the_process_list_of_safe_classes_stays_as_it_was(tmp_path: Path) -> None:
    torch.save(_rich(), tmp_path / "good.pth")
    torch.save({"x": random.Random(0)}, tmp_path / "bad.pth")
    before = torch.serialization.get_safe_globals()
    given = [argparse.Namespace, (random.Random, "random.Random")]
    with torch.serialization.safe_globals(given):
        read_weight_file(tmp_path / "good.pth")
        # What another library admits is not admitted here.
        assert "(random.Random)" in _error(tmp_path / "bad.pth")
        assert set(torch.serialization.get_safe_globals()) == {*before, *given}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_pickle_protocols(tmp_path: Path, zipped: bool, protocol: int) -> None:
    path = tmp_path / "w.pth"
    torch.save(_weights(), path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, of every protocol but 2
        if protocol <= 3:
            _equal(read_weight_file(path), _weights())
            return
        message = _error(path)
    assert "is not a readable weight file" in message
    assert "save its state dict again: torch.save(model.state_dict(), ...)" in message


# --- TorchScript ---


def test_torchscript_gives_the_state_dict(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    state = _scripted(path).state_dict()
    found = read_weight_file(path)
    _equal(found, state)
    assert {"first.weight", "stack.1.bias", "norm.running_mean", "middle"} <= set(found)
    assert "constant" not in found
    assert found["transposed"].stride() == state["transposed"].stride() == (1, 5)
    assert found["tied.weight"].data_ptr() == found["first.weight"].data_ptr()
    # Views of one memory.
    assert found["middle"].data_ptr() == found["strided"].data_ptr() + 3 * 4
    assert not any(tensor.requires_grad for tensor in found.values())


def test_traced_torchscript(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    module = nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(module, torch.zeros(1, 3, 4, 4)).save(str(path))
    _equal(read_weight_file(path), module.state_dict())


def test_torchscript_is_read_without_its_loader(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _scripted(tmp_path / "w.pt")
    monkeypatch.setattr("torch.jit.load", lambda *_, **__: pytest.fail("runs code"))
    monkeypatch.setattr("torch._C.import_ir_module", lambda *_, **__: pytest.fail("runs code"))
    assert read_weight_file(tmp_path / "w.pt")


def test_compressed_and_unaligned_torchscript(tmp_path: Path) -> None:
    state = _scripted(tmp_path / "w.pt").state_dict()
    for compression, padding in [(zipfile.ZIP_DEFLATED, ""), (zipfile.ZIP_STORED, "pad")]:
        path = _rewritten(tmp_path / "w.pt", compression=compression, first=padding)
        found = read_weight_file(path)
        _equal(found, state)
        assert found["tied.weight"].data_ptr() == found["first.weight"].data_ptr()
        for name, tensor in found.items():
            assert tensor.data_ptr() % tensor.element_size() == 0, name


def test_a_compressed_storage_that_is_aligned(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/data/" + 11 * "k", np.ones(64, "<f4").tobytes())
        archive.writestr("m/data.pkl", _module(_text("a") + _tensor(key=11 * "k", length=64)))
        archive.writestr("m/constants.pkl", b"")
    with zipfile.ZipFile(tmp_path / "w.pt") as archive:
        name = archive.infolist()[0].filename
    assert (30 + len(name)) % 16 == 0, "not aligned: the test cannot fail"
    assert read_weight_file(tmp_path / "w.pt")["a"].tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("kind", ["zip", "torchscript"])
def test_a_member_that_is_not_where_the_directory_says(tmp_path: Path, kind: str) -> None:
    _WRITERS[kind](tmp_path / "w.pt")
    with zipfile.ZipFile(tmp_path / "w.pt") as archive:
        (at,) = (m.header_offset for m in archive.infolist() if m.filename.endswith("/data/1"))
    data = bytearray((tmp_path / "w.pt").read_bytes())
    data[at : at + 2] = b"??"
    (tmp_path / "w.pt").write_bytes(data)
    message = _error(tmp_path / "w.pt")
    assert "damaged: w/data/1 in it is not what its checksum says" in message


def test_old_torchscript_does_not_tell_buffers(tmp_path: Path) -> None:
    """Then every tensor of a module is taken."""
    state = _scripted(tmp_path / "w.pt").state_dict()
    change = {
        ".py": lambda data: data.replace(b"  __buffers__", b"  other"),
        "byteorder": lambda _: None,
    }
    path = _rewritten(tmp_path / "w.pt", change)
    _equal(read_weight_file(path), {**state, "constant": torch.full((2,), 9.0)})


def test_frozen_torchscript_has_no_parameters(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frozen = torch.jit.freeze(torch.jit.script(nn.Linear(2, 2).eval()))
        frozen.save(str(tmp_path / "w.pt"))
    message = _error(tmp_path / "w.pt")
    assert "holds no parameters or buffers (a frozen TorchScript module" in message


def test_big_endian_torchscript(tmp_path: Path) -> None:
    _scripted(tmp_path / "w.pt")
    path = _rewritten(tmp_path / "w.pt", {"byteorder": lambda _: b"big"})
    assert "is a TorchScript archive of a big-endian machine" in _error(path)


def _text(text: str) -> bytes:
    """Pickle instructions that push a text."""
    data = text.encode(errors="surrogatepass")
    return pickle.BINUNICODE + len(data).to_bytes(4, "little") + data


def _number(value: float) -> bytes:
    if isinstance(value, float):
        return pickle.BINFLOAT + struct.pack(">d", value)
    if value < 2**31:
        return pickle.BININT + value.to_bytes(4, "little", signed=True)
    data = pickle.encode_long(value)
    return pickle.LONG1 + len(data).to_bytes(1, "little") + data


def _numbers(values: tuple[float, ...]) -> bytes:
    return pickle.MARK + b"".join(map(_number, values)) + pickle.TUPLE


def _module(attributes: bytes) -> bytes:
    """The pickle of a module whose attributes are these names and values."""
    start = pickle.PROTO + b"\x02" + b"c__torch__\nM\n" + b")\x81" + b"}("
    return start + attributes + b"ub" + pickle.STOP


def _tensor(
    *,
    key: str = "0",
    kind: str = "FloatStorage",
    length: int = 4,
    offset: float = 0,
    size: tuple[int, ...] = (4,),
    stride: tuple[int, ...] = (1,),
    storage: bytes = b"",
    more: bytes = b"",
) -> bytes:
    described = _text("storage") + b"ctorch\n" + kind.encode() + b"\n" + _text(key)
    storage = storage or b"(" + described + _text("cpu") + _number(length) + b"tQ"
    hooks = b"ccollections\nOrderedDict\n)R"
    arguments = storage + _number(offset) + _numbers(size) + _numbers(stride) + b"\x89" + hooks
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + more + b"tR"


def _archive(path: Path, data: bytes, storage: bytes = np.arange(4, dtype="<f4").tobytes()) -> Path:
    """Write a TorchScript archive by hand."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data/0", storage)
        archive.writestr("m/data.pkl", data)
        archive.writestr("m/constants.pkl", b"")
    return path


def test_torchscript_by_hand(tmp_path: Path) -> None:
    """What the refused ones below are variations of."""
    tensor = _tensor(offset=1, size=(2,), stride=(2,))
    parameter = b"ctorch._utils\n_rebuild_parameter\n(" + tensor + b"\x88N" + b"tR"
    path = _archive(tmp_path / "w.pt", _module(_text("a") + tensor + _text("b") + parameter))
    found = read_weight_file(path)
    assert {name: tensor.tolist() for name, tensor in found.items()} == {"a": [1, 3], "b": [1, 3]}


_OUTSIDE = "a tensor that reaches over the end of its storage 0"
_NO_TENSOR = "a tensor that is not described as one"
_NO_STORAGE = "a storage that is not described as one"


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (_tensor(offset=1), _OUTSIDE),
        (_tensor(offset=2**62, size=(1,)), _OUTSIDE),
        (_tensor(size=(5,)), _OUTSIDE),
        (_tensor(size=(2**40,)), _OUTSIDE),
        (_tensor(size=(2, 2), stride=(3, 1)), _OUTSIDE),
        (_tensor(size=(2,), stride=(4,)), _OUTSIDE),
        (_tensor(kind="DoubleStorage", length=2), _OUTSIDE),
        (_tensor(offset=-1, size=(1,)), _NO_TENSOR),
        (_tensor(size=(-2,)), _NO_TENSOR),
        (_tensor(stride=(-1,)), _NO_TENSOR),
        (_tensor(offset=1.0, size=(1,)), _NO_TENSOR),
        (_tensor(size=(2, 2), stride=(1,)), _NO_TENSOR),
        (_tensor(storage=_number(3)), _NO_TENSOR),
        (_tensor(length=-1), _NO_STORAGE),
        (_tensor(storage=_number(3) + b"Q"), _NO_STORAGE),
        (_tensor(length=5), "storage 0 is shorter than data.pkl says"),
        (_tensor(kind="DoubleStorage"), "storage 0 is shorter than data.pkl says"),
        (_tensor(key="1"), "no storage 1"),
        (_tensor(key="../m/data/0"), "no storage ../m/data/0"),
        (_tensor(more=b"}" + _text("conj") + b"\x88s"), "conjugated or negated"),
        (
            b"ctorch._utils\n_rebuild_parameter\n(" + _number(3) + b"\x88NtR",
            "a parameter without a tensor",
        ),
        # A call with too few arguments, and no call at all.
        (b"ctorch._utils\n_rebuild_tensor_v2\n(" + _number(3) + b"tR", "truncated, damaged"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n)\x81", "truncated, damaged"),
    ],
)
def test_tensors_that_the_storages_do_not_hold(tmp_path: Path, tensor: bytes, reason: str) -> None:
    message = _error(_archive(tmp_path / "w.pt", _module(_text("a") + tensor)))
    assert "is not a readable weight file: it is " in message
    assert reason in message


def test_objects_with_a_state_of_their_own_are_passed_over(tmp_path: Path) -> None:
    """Quantised layers pack their weights so; nothing says what is in there."""
    other = b"c__torch__\nPacked\n)\x81" + _numbers((1, 2)) + b"b"
    data = _module(_text("a") + _tensor() + _text("b") + other)
    assert list(read_weight_file(_archive(tmp_path / "w.pt", data))) == ["a"]


def test_overlapping_and_empty_tensors_are_in_bounds(tmp_path: Path) -> None:
    attributes = (
        _text("expanded") + _tensor(size=(3, 4), stride=(0, 1))
        + _text("empty") + _tensor(size=(9, 0), stride=(9, 1))
        + _text("scalar") + _tensor(offset=3, size=(), stride=())
    )  # fmt: skip
    found = read_weight_file(_archive(tmp_path / "w.pt", _module(attributes)))
    assert found["expanded"].tolist() == [[0, 1, 2, 3]] * 3
    assert found["empty"].shape == (9, 0)
    assert found["scalar"] == 3


def test_a_module_that_holds_itself(tmp_path: Path) -> None:
    data = pickle.PROTO + b"\x02c__torch__\nM\n)\x81q\x00}(" + _text("a") + b"h\x00ub."
    assert "is not a readable weight file" in _error(_archive(tmp_path / "w.pt", data))


# --- Files that would run code ---


class _Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, victim: Path, how: str = "method") -> None:
        self.victim = victim
        self.how = how

    def __reduce__(self) -> tuple[Any, ...]:
        if self.how == "system":
            return os.system, (f"touch {self.victim}",)
        if self.how == "nested":  # the harmful call makes the argument of an admitted one
            return argparse.Namespace, (_Malicious(self.victim),)
        if self.how == "state":  # ... or the state of an admitted class
            return argparse.Namespace, (), {"a": _Malicious(self.victim)}
        if self.how == "eval":
            return eval, (f"__import__('os').system('touch {self.victim}')",)
        return Path.touch, (self.victim,)


def _contents(victim: Path, how: str) -> dict[str, Any]:
    return {**_weights(), "args": argparse.Namespace(x=[{"y": _Malicious(victim, how)}])}


@pytest.mark.parametrize("how", ["method", "system", "nested", "state", "eval"])
@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_pickles_run_no_code(tmp_path: Path, kind: str, how: str) -> None:
    victim, path = tmp_path / "owned", tmp_path / "w.pth"
    content = _contents(victim, how)
    if kind == "pickle":
        path.write_bytes(pickle.dumps(content["args"], protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    message = _error(path)
    assert not victim.exists()
    name = {"system": f"{os.name}.system", "eval": "builtins.eval"}.get(how, "builtins.getattr")
    assert f"holds Python objects beside tensors ({name}" in message
    assert "OrderedDict" not in message, "names only what is refused"
    assert "Namespace" not in message
    assert "torch.save(model.state_dict(), ...)" in message
    _would_have(content["args"], victim)


@pytest.mark.parametrize("protocol", range(6))
def test_bare_pickles_of_every_protocol(tmp_path: Path, protocol: int) -> None:
    victim, path = tmp_path / "owned", tmp_path / "w.pkl"
    content = {"state": {"one": 1}, "name": _Malicious(victim, "system")}
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    message = _error(path)
    assert not victim.exists()
    if protocol >= 2:
        assert f"holds Python objects beside tensors ({os.name}.system)" in message
    else:
        assert "is not a readable weight file" in message
    _would_have(content, victim)


def _would_have(content: Any, victim: Path) -> None:
    """Hold that Python's own unpickler would have made the file: the test can fail."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.Namespace, "__init__", lambda *_: None)
        pickle.loads(pickle.dumps(content, protocol=2))
    assert victim.exists()


def test_all_refused_classes_are_named(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2), "a": timedelta(1), "b": random.Random(0)}, tmp_path / "w.pth")
    message = _error(tmp_path / "w.pth")
    assert "beside tensors (datetime.timedelta, random.Random), which" in message


def test_a_whole_module_is_refused_by_its_classes(tmp_path: Path) -> None:
    for zipped in (True, False):
        path = tmp_path / f"{zipped}.pth"
        torch.save(nn.Sequential(nn.Linear(2, 2)), path, _use_new_zipfile_serialization=zipped)
        message = _error(path)
        assert "torch.nn.modules.container.Sequential" in message
        assert "torch.nn.modules.linear.Linear" in message


def test_object_arrays_run_no_code(tmp_path: Path) -> None:
    victim, path = tmp_path / "owned", tmp_path / "w.npz"
    content = np.array([_Malicious(victim, "system")], dtype=object)
    _save_npz(path, {"good": np.ones(2), "bad": content})
    assert "holds Python objects in its array 'bad'" in _error(path)
    assert not victim.exists()
    np.load(path, allow_pickle=True)["bad"]
    assert victim.exists()


def _global(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (os.name, "system"),
        ("builtins", "getattr"),
        ("builtins", "exec"),
        ("torch", "load"),
        ("torch._utils", "_import_dotted_name"),
        ("torch.jit._pickle", "__builtins__"),
        ("collections", "OrderedDict.fromkeys"),
        ("torch", "FloatStorage.from_file"),
        ("__torch__x", "y"),
        ("torch.__torch__", "y"),
    ],
)
def test_torchscript_runs_no_code(tmp_path: Path, module: str, name: str) -> None:
    victim = tmp_path / "owned"
    call = _global(module, name) + b"(" + _text(f"touch {victim}") + b"tR"
    data = _module(_text("a") + _tensor() + _text("b") + call)
    message = _error(_archive(tmp_path / "w.pt", data))
    assert f"holds Python objects beside tensors ({module}.{name}), which" in message
    assert not victim.exists()
    if name == "system":
        pickle.loads(pickle.PROTO + b"\x02" + call + pickle.STOP)
        assert victim.exists()


@pytest.mark.parametrize(
    ("instructions", "reason"),
    [
        # Sets attributes of what stands for a name.
        (_global("torch._utils", "_rebuild_tensor_v2") + b"N}" + _text("x") + b"Ns\x86b", ""),
        (_global("__torch__", "M") + b"N}" + _text("__init__") + b"Ns\x86b", ""),
        (_global("collections", "OrderedDict") + b"}" + _text("x") + b"Nsb", ""),
        (_global("torch", "FloatStorage") + b"}" + _text("x") + b"Nsb", ""),
        # Other ways to name a class or to call one.
        (_text("os") + _text("system") + pickle.STACK_GLOBAL, "an instruction STACK_GLOBAL"),
        (b"(" + _text("true") + pickle.INST + b"os\nsystem\n", "an instruction INST"),
        (pickle.EXT1 + b"\x01", "an instruction EXT1"),
        # Numbers that Python's unpickler would believe.
        (_number(1) + pickle.LONG_BINPUT + b"\0\0\0\x10", "more objects than bytes"),
        (pickle.BYTEARRAY8 + b"\0\0\0\0\x10\0\0\0", "expected 68719476736 bytes"),
    ],
)
def test_instructions_that_torchscript_never_needs(
    tmp_path: Path, instructions: bytes, reason: str
) -> None:
    good = _archive(tmp_path / "good.pt", _module(_text("a") + _tensor()))
    bad = _module(_text("a") + _tensor() + _text("b") + instructions)
    message = _error(_archive(tmp_path / "bad.pt", bad))
    assert "is not a readable weight file" in message
    assert reason in message
    assert read_weight_file(good)["a"].tolist() == [0, 1, 2, 3], "what was read left nothing behind"


# --- Damaged files, and files of other kinds ---


def _rewritten(
    path: Path,
    change: Mapping[str, Callable[[bytes], bytes | None]] | None = None,
    *,
    compression: int = zipfile.ZIP_STORED,
    first: str = "",
) -> Path:
    """Write an archive again, with other bytes for members whose names end so; None drops one."""
    target = path.with_name(f"again-{path.name}")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w", compression) as new:
        for member in old.infolist():
            data: bytes | None = old.read(member)
            for name, function in (change or {}).items():
                if member.filename.endswith(name):
                    data = function(old.read(member))
            if data is not None:
                # The length of what stands before a storage decides how it is aligned.
                if first and "/data/" in member.filename:
                    new.writestr(f"{member.filename.split('/')[0]}/{first}{len(new.filelist)}", "x")
                new.writestr(member.filename, data)
    return target


def _change(path: Path, change: Callable[[bytes], bytes]) -> None:
    _rewritten(path, {"data.pkl": change}).replace(path)


@pytest.mark.parametrize("share", [0.001, 0.02, 0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize("kind", sorted(_WRITERS))
def test_truncated_files(tmp_path: Path, kind: str, share: float) -> None:
    path = tmp_path / "w.bin"
    _WRITERS[kind](path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert "is not a readable weight file: " in _error(path)


@pytest.mark.parametrize("kind", sorted(_WRITERS))
def test_damaged_files_never_end_in_a_traceback(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "w.bin"
    _WRITERS[kind](path)
    whole = path.read_bytes()
    rng = random.Random(kind)
    refused = 0
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 2, 8])):
            data[rng.randrange(min(len(data), 1200))] = rng.randrange(256)
        path.write_bytes(data)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read_weight_file(path)
        except ModelError:
            refused += 1
    assert refused > 0


@pytest.mark.parametrize("kind", ["zip", "torchscript"])
def test_damaged_pickles_never_end_in_a_traceback(tmp_path: Path, kind: str) -> None:
    _WRITERS[kind](tmp_path / "w.bin")
    rng = random.Random(kind)

    def damage(data: bytes) -> bytes:
        at = rng.randrange(len(data))
        return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]

    refused = 0
    for _ in range(60):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read_weight_file(_rewritten(tmp_path / "w.bin", {"data.pkl": damage}))
        except ModelError:
            refused += 1
    assert refused > 0


_OTHERS = {
    "empty": (b"", "it is empty"),
    "text": (b"not a checkpoint\nat all, \xc3\xa9\n", "it is a text"),
    "cut text": ("é".encode() * 300, "it is a text"),
    "brace": (b"weights {", "it is a text"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
    "page": (b"\n<!DOCTYPE html><html><body>Sign in</body>", "it is a web page"),
    "gzip": (b"\x1f\x8b\x08" + bytes(100), "compressed by gzip: unpack it first"),
    "tar": (b"a.txt".ljust(257, b"\0") + b"ustar" + bytes(300), "a tar archive: unpack it first"),
    "keras": (b"\x89HDF\r\n\x1a\n" + bytes(100), "it is an HDF5 file"),
    "zeros": (bytes(5000), "zeros at its beginning, like an unfinished download"),
    "noise": (bytes(range(255, 0, -1)), "none of safetensors, npz, torch.save's"),
    "pickle": (pickle.dumps({"a": 1}, protocol=2), "a pickle that torch.save did not write"),
    "header": (b"\x10" + bytes(7) + b"{" + bytes(5), "truncated, damaged"),
}


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("name", sorted(_OTHERS))
def test_files_of_other_kinds(tmp_path: Path, name: str, suffix: str) -> None:
    path = tmp_path / f"w.{suffix}"
    content, reason = _OTHERS[name]
    path.write_bytes(content)
    message = _error(path)
    assert "is not a readable weight file: it is " in message
    assert reason in message


def test_a_single_array(tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", np.ones(3))
    assert "a single NumPy array, without names" in _error(tmp_path / "w.npy")


def test_archives_without_weights(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        archive.writestr("model/weights.pth", "x")
    message = _error(tmp_path / "w.zip")
    assert "holds no weights that vitfeat reads" in message
    assert "(it has model/weights.pth); if it holds a weight file, unpack it first" in message


@pytest.mark.parametrize("kind", [RuntimeError, pickle.UnpicklingError])
def test_pytorchs_advice_is_not_passed_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: type[Exception]
) -> None:
    """It says how to run what is in the file."""
    torch.save(_weights(), tmp_path / "w.pth")

    def advise(*_: Any, **__: Any) -> None:
        raise kind("Load failed: set `weights_only` to False")

    monkeypatch.setattr(torch, "load", advise)
    assert f"({kind.__name__})" in _error(tmp_path / "w.pth")


def test_errors_without_words_are_named(tmp_path: Path) -> None:
    torch.save(_weights(), tmp_path / "w.pth")
    _change(tmp_path / "w.pth", lambda data: data[:-20])
    assert "(EOFError)" in _error(tmp_path / "w.pth")


def test_pytorchs_reason_is_passed_on(tmp_path: Path) -> None:
    torch.save(_weights(), tmp_path / "w.pth")
    _change(tmp_path / "w.pth", lambda data: data[:2] + pickle.DUP + data[2:])
    assert "(Unsupported operand 50)" in _error(tmp_path / "w.pth")


def test_names_that_no_class_has(tmp_path: Path) -> None:
    path = tmp_path / "w.pkl"
    for name in ("a\nb", "\ud800"):
        texts = _text("os") + _text(name)
        path.write_bytes(pickle.PROTO + b"\x04" + texts + pickle.STACK_GLOBAL + pickle.STOP)
        assert "a pickle that torch.save did not write" in _error(path)


def test_no_file_at_all(tmp_path: Path) -> None:
    assert "is a folder" in _error(tmp_path)
    assert "is not there" in _error(tmp_path / "absent.pth")


@pytest.mark.skipif(sys.platform == "win32", reason="no such files")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "w.pth")
    assert "is no regular file" in _error(tmp_path / "w.pth")


def test_a_file_that_may_not_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(b"x")

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root may read everything
    assert "is not a readable weight file: it cannot be opened (Permission denied)" in _error(path)


# --- bounds ---


def _inflated(path: Path, member: str, n_bytes: int) -> Path:
    """Copy an archive with one member replaced by so many zeros, deflated to a thousandth."""
    out = path.with_name("inflated.pth")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, bytes(n_bytes) if name.endswith(member) else old.read(name))
    return out


@pytest.mark.parametrize("kind", ["zip", "npz", "torchscript"])
def test_archives_unpack_into_no_more_than_weights_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    _WRITERS[kind](tmp_path / "w")
    members = {"zip": ["data/0", "data.pkl", "version"], "npz": ["a.weight.npy"]}
    for member in members.get(kind, ["data/0", "data.pkl", "version", "constants.pkl"]):
        path = _inflated(tmp_path / "w", member, 2**22)
        monkeypatch.setattr("vitfeat.weights.weightfile._UNPACKED", 2**21)
        assert "MiB, as no weights do" in _error(path)
        # So many zeros are allowed where they are few.
        monkeypatch.setattr("vitfeat.weights.weightfile._UNPACKED", 2**28)
        assert "unpacks" not in str(_outcome(path))


def _outcome(path: Path) -> Any:
    try:
        return read_weight_file(path)
    except ModelError as error:
        return error


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_of_millions_of_objects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    monkeypatch.setattr("vitfeat.weights.weightfile.MAX_NAMES", 2**16)
    monkeypatch.setattr("vitfeat.weights.torchsave.MAX_NAMES", 2**16)
    path = tmp_path / "w.pth"
    for n, refused in [(2**14, False), (2**17, True)]:
        saved = {**_weights(), "seen": [{}] * n}
        torch.save(saved, path, _use_new_zipfile_serialization=zipped)
        outcome = _outcome(path)
        assert isinstance(outcome, ModelError) == refused
        assert not refused or "64.0 KiB" in str(outcome)


def test_a_header_of_millions_of_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file({f"n{i}": torch.zeros(0) for i in range(500)}, tmp_path / "w")
    assert len(read_weight_file(tmp_path / "w")) == 500
    monkeypatch.setattr("vitfeat.weights.weightfile.MAX_NAMES", 2**13)
    assert "8.0 KiB are read" in _error(tmp_path / "w")


def test_an_archive_of_very_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(_weights(), tmp_path / "w")
    monkeypatch.setattr("vitfeat.weights.weightfile._MOST_MEMBERS", 4)
    assert "files, too many for weights" in _error(tmp_path / "w")


@pytest.mark.parametrize("kind", ["zip", "npz", "torchscript"])
def test_weights_that_are_not_what_their_checksum_says(tmp_path: Path, kind: str) -> None:
    _WRITERS[kind](tmp_path / "w")
    data = bytearray((tmp_path / "w").read_bytes())
    with zipfile.ZipFile(tmp_path / "w") as archive:
        members = [m for m in archive.infolist() if m.file_size == m.compress_size > 0]
    for member in members:
        header = member.header_offset + 30
        start = header + sum(struct.unpack("<HH", data[header - 4 : header]))
        for place in (start, start + member.file_size - 1):
            data[place] ^= 1
            (tmp_path / "w").write_bytes(data)
            data[place] ^= 1
            assert f"{member.filename} in it is not what its checksum says" in _error(
                tmp_path / "w"
            )
