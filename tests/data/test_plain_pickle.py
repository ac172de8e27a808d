"""Pickles of plain data: what honest ones hold, and that hostile ones run nothing."""

from __future__ import annotations

import copyreg
import os
import pickle
import resource
import struct
import sys
from collections import OrderedDict
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitfeat.data import plain_pickle
from vitfeat.data.plain_pickle import read_plain_pickle
from vitfeat.errors import DataError

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)

HELD: dict[str, Any] = {
    "names": ["a", "é ü", "", "x" * 300],
    "numbers": [0, -1, 255, 2**31, -(2**40), 10**30, 2.5, float("inf"), True, False, None],
    "nested": [(), (1,), (1, 2), (1, 2, 3), (1, (2, [3, {"four": 5}])), {1: "one", 2.5: []}],
    "bytes": [b"", b"\x00\xff\x80", b"y" * 300],
}

ARRAYS = [
    np.arange(5),
    np.array([], dtype=np.int64),
    np.array([]),
    np.array(7, dtype=np.uint8),
    np.array([True, False]),
    np.arange(6, dtype=">i4").reshape(2, 3),
    np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    np.arange(12, dtype=np.float16)[::3],
    np.array(["a", "ü", "ccc"]),
    np.array([b"a", b"\xff\x01"]),
]

SCALARS = [np.float64(0.1), np.int32(-7), np.uint64(2**63), np.bool_(True), np.str_("ö")]


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_data_comes_back(tmp_path: Path, protocol: int) -> None:
    path = write(tmp_path / "a.pkl", pickle.dumps(HELD, protocol))
    found = read_plain_pickle(path)
    assert found == HELD
    assert [type(v) for v in found["numbers"]] == [type(v) for v in HELD["numbers"]]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_and_scalars_come_back(tmp_path: Path, protocol: int) -> None:
    # Twice the same array: it is written once, and named again.
    content = {"arrays": [*ARRAYS, ARRAYS[0]], "tuple": ("x", ARRAYS[5]), "scalars": SCALARS}
    found = read_plain_pickle(write(tmp_path / "a.pkl", pickle.dumps(content, protocol)))
    for one, other in zip(found["arrays"], content["arrays"], strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(found["tuple"][1], ARRAYS[5])
    assert found["scalars"] == SCALARS
    assert [type(v) for v in found["scalars"]] == [float, int, int, bool, str]


@pytest.mark.parametrize("core", ["core", "_core"])
def test_both_names_of_numpys_modules_are_known(tmp_path: Path, core: str) -> None:
    for protocol in PROTOCOLS:
        data = pickle.dumps([np.arange(3), np.float64(2)], protocol)
        other = b"numpy.core." if core == "core" else b"numpy._core."
        for name in (b"numpy._core.", b"numpy.core."):
            if protocol < 4:
                data = data.replace(name, other)
        found = read_plain_pickle(write(tmp_path / "a.pkl", data))
        assert found[0].tolist() == [0, 1, 2]


def test_a_pickle_of_python_2(tmp_path: Path) -> None:
    """As cPickle wrote numpy.array([1, 2], '<i4') and a str there, in protocol 2."""
    data = (
        b"\x80\x02}q\x00(U\x01aq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\n"
        b"q\x03K\x00\x85q\x04U\x01bq\x05\x87q\x06Rq\x07(K\x01K\x02\x85q\x08cnumpy\ndtype\nq\t"
        b"U\x02i4q\nK\x00K\x01\x87q\x0bRq\x0c(K\x03U\x01<q\rNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
        b"K\x00tq\x0eb\x89U\x08\x01\x00\x00\x00\x80\xff\x00\x00q\x0ftq\x10bu."
    )
    found = read_plain_pickle(write(tmp_path / "a.pkl", data))
    assert found["a"].tolist() == [1, 0xFF80]


# What would leave a trace if any of it ran.
TRACE: list[str] = []


def traced(*_: Any) -> str:
    TRACE.append("ran")
    return "ran"


class Reduced:
    """Pickled as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


class Stated:
    """Pickled as an object with a state."""

    def __setstate__(self, state: Any) -> None:
        traced()


def stated() -> Stated:
    found = Stated()
    found.__dict__["x"] = 1
    return found


MODULE = __name__
ARRAY_SHELL = "cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
OBJECT_TYPE = "cnumpy\ndtype\n(S'O8'\nI0\nI1\ntR"
INT_TYPE = "cnumpy\ndtype\n(S'i8'\nI0\nI1\ntR"


def array_of(kind: str) -> bytes:
    """An array of eight bytes."""
    return f"{ARRAY_SHELL}(I1\n(I1\nt{kind}I0\nS'12345678'\ntb.".encode()


HOSTILE: dict[str, bytes] = {
    "os.system": pickle.dumps(Reduced(os.system, "true")),
    "a function of ours": pickle.dumps(Reduced(traced)),
    "eval": pickle.dumps(Reduced(eval, "1")),
    "getattr": pickle.dumps(Reduced(getattr, "", "upper")),
    "import": pickle.dumps(Reduced(__import__, "os")),
    "partial": pickle.dumps(partial(traced)),
    "copyreg": pickle.dumps(Reduced(copyreg.pickle, date, traced)),
    "copyreg, protocol 0": b"ccopy_reg\n_reconstructor\n(c__main__\nA\nc__builtin__\nobject\nNtR.",
    "object": pickle.dumps(stated()),
    "object, protocol 0": pickle.dumps(stated(), 0),
    "ordered dict": pickle.dumps(OrderedDict(a=1)),
    "date": pickle.dumps(date(2000, 1, 1)),
    "a class": pickle.dumps(dict),
    "array of objects": pickle.dumps(np.array([traced, None], dtype=object)),
    "array of objects that are plain": pickle.dumps(np.array(["a", 1], dtype=object)),
    "structured array": pickle.dumps(np.zeros(2, dtype=[("a", "i4"), ("b", "f8")])),
    "dates": pickle.dumps(np.array(["2000-01-01"], dtype="M8[D]")),
    "longdouble": pickle.dumps(np.zeros(1, dtype=np.longdouble)),
    "masked array": pickle.dumps(np.ma.masked_array([1, 2], [0, 1])),
    "random state": pickle.dumps(np.random.default_rng(0)),
    "numpy.load": b"cnumpy\nload\n(S'x'\ntR.",
    "name within a name": b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__class__\x93.",
    "submodule by a dot": b"cnumpy\ncore.multiarray.scalar\n.",
    "inst": f"(i{MODULE}\ntraced\n.".encode(),
    "obj": f"(c{MODULE}\ntraced\no.".encode(),
    "newobj": f"c{MODULE}\nReduced\n)\x81.".encode("latin-1"),
    "newobj of an array": b"\x80\x02cnumpy\nndarray\n)\x81.",
    "newobj_ex": b"\x80\x04\x8c\x05numpy\x8c\x07ndarray\x93)}\x92.",
    "extension": b"\x82\x01.",
    "persistent id": b"Pname\n.",
    "binary persistent id": b"S'name'\nQ.",
    "buffer out of band": b"\x80\x05\x97.",
    "set": pickle.dumps({1, 2}),
    "call of the class of arrays": b"cnumpy\nndarray\n(I3\ntR.",
    "call of a text": b"S'print'\n(S'x'\ntR.",
    "call of what was made": f"{ARRAY_SHELL}(tR.".encode(),
    "bytes of numbers": b"c__builtin__\nbytes\n(I99999999999\ntR.",
    "codec": b"c_codecs\nencode\n(S'a'\nS'zip'\ntR.",
    "state of a name": b"cnumpy\nndarray\n}S'a'\nI1\nsb.",
    "state of a list": b"]}b.",
    "state of a dict": b"}(S'__class__'\nI1\ntb.",
    "name as value": b"(lcnumpy\nndarray\na.",
    "name as result": b"cnumpy\ndtype\n.",
    "name in a tuple": b"(I1\n(cnumpy\ndtype\ntt.",
    "name in a tuple in a list": b"(l(cnumpy\ndtype\nta.",
    "name as key": b"}cnumpy\ndtype\nI1\ns.",
    "name in a dict": b"}I1\ncnumpy\ndtype\ns.",
    "array without values": ARRAY_SHELL.encode() + b".",
    "array without values in a list": b"(l" + ARRAY_SHELL.encode() + b"a.",
    "array of an array": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\n(I0\ntS'b'\ntR.",
    "values of objects": f"{ARRAY_SHELL}(I1\n(I1\nt{OBJECT_TYPE}I0\n(lS'a'\natb.".encode(),
    "more values than bytes": f"{ARRAY_SHELL}(I1\n(I9\nt{INT_TYPE}I0\nS'12345678'\ntb.".encode(),
    "impossible shape": f"{ARRAY_SHELL}(I1\n(I-1\nt{INT_TYPE}I0\nS''\ntb.".encode(),
    "huge shape": f"{ARRAY_SHELL}(I1\n(I{10**30}\nI0\nt{INT_TYPE}I0\nS''\ntb.".encode(),
    "shape of booleans and texts": f"{ARRAY_SHELL}(I1\n(S'1'\nt{INT_TYPE}I0\nS''\ntb.".encode(),
    "fewer values than bytes": f"{ARRAY_SHELL}(I1\n(I1\nt{INT_TYPE}I0\nS'{'1' * 16}'\ntb.".encode(),
    "fields": array_of(f"{INT_TYPE}(I3\nS'<'\nNS'a'\nNtb"),
    "sub-array": array_of(f"{INT_TYPE}(I3\nS'<'\n(I2\ntNNtb"),
    "byte order": array_of(f"{INT_TYPE}(I3\nS'O'\nNNNtb"),
    "type of a type": b"cnumpy\ndtype\n(cnumpy\nndarray\ntR.",
    "text without end": b"cnumpy\ndtype\n(S'U999999999'\nI0\nI1\ntR.",
    "scalar of an object": f"cnumpy.core.multiarray\nscalar\n({OBJECT_TYPE}S'a'\ntR.".encode(),
    "scalar of a text": b"cnumpy.core.multiarray\nscalar\n(S'i8'\nS'12345678'\ntR.",
    "unhashable key": b"}(lI1\ns.",
    "tuple as key": b"}(I1\ntI1\ns.",
    "append to a text": b"S'a'\nI1\na.",
    "odd dict": b"(I1\nd.",
    "empty stack": b".",
    "no mark": b"t.",
    "never put": b"g5\n.",
    "empty": b"",
    "cut": pickle.dumps(HELD)[:-20],
    "no pickle": b"\xff\xd8\xff\xe0JFIF",
    "text": b"imlist: [a, b]\n",
    "number of too many digits": b"I" + b"9" * 5000 + b"\n.",
    "bytes that are not there": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b".",
    "text that is not there": b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b".",
    "byte array that is not there": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",
    "number that is not there": b"\x8b" + struct.pack("<i", 2**31 - 1) + b".",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_not_plain_is_refused(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "evil.pkl", HOSTILE[name])
    before = set(sys.modules)
    with pytest.raises(DataError) as caught:
        read_plain_pickle(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert len(message) < 700
    assert not TRACE
    assert set(sys.modules) == before


def test_the_hostile_ones_are_near_to_what_is_read(tmp_path: Path) -> None:
    """The arrays above are refused for what is said of them, and not for how they are written."""
    found = read_plain_pickle(write(tmp_path / "a.pkl", array_of(f"{INT_TYPE}(I3\nS'<'\nNNNtb")))
    assert found.tolist() == [int.from_bytes(b"12345678", "little")]
    assert read_plain_pickle(write(tmp_path / "a.pkl", array_of(INT_TYPE))).shape == (1,)


def test_nothing_is_imported_or_called(tmp_path: Path) -> None:
    """A module that would leave a trace when it is imported, found by Python's own unpickler."""
    (tmp_path / "vitfeat_trap.py").write_text("raise SystemExit('imported')\n")
    path = write(tmp_path / "a.pkl", b"cvitfeat_trap\nf\n.")
    sys.path.insert(0, str(tmp_path))
    try:
        with pytest.raises(DataError, match=r"names vitfeat_trap\.f"):
            read_plain_pickle(path)
        with pytest.raises(SystemExit):
            pickle.loads(path.read_bytes())
    finally:
        sys.path.remove(str(tmp_path))


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def test_deep_nesting_ends_no_program(tmp_path: Path) -> None:
    depth = 100_000
    found = read_plain_pickle(write(tmp_path / "a.pkl", b"]" * depth + b"a" * (depth - 1) + b"."))
    for _ in range(depth - 1):
        (found,) = found
    assert found == []
    tuples = read_plain_pickle(write(tmp_path / "b.pkl", b")" + b"\x85" * depth + b"."))
    assert isinstance(tuples, tuple)
    marks = write(tmp_path / "c.pkl", b"(" * depth + b".")
    with pytest.raises(DataError, match="damaged"):
        read_plain_pickle(marks)


def test_a_list_that_holds_itself_is_read(tmp_path: Path) -> None:
    held: list[Any] = []
    held.append(held)
    found = read_plain_pickle(write(tmp_path / "a.pkl", pickle.dumps(held)))
    assert found[0] is found


TEXT = b"X" + struct.pack("<I", 100_000) + b"a" * 100_000 + b"q\x00"
"""A text of 100 kB, put aside."""


@pytest.mark.parametrize(
    ("name", "data"),
    [
        # Each doubles: 2^60 leaves, were they ever walked.
        ("laughs of tuples", b")" + b"2\x86" * 60 + b"."),
        # A place in the memo far beyond, for which Python's unpickler takes 64 GB.
        ("far place of the memo", b"Nr\xf0\xff\xff\xff."),
    ],
)
def test_little_memory_is_needed(tmp_path: Path, name: str, data: bytes) -> None:
    path = write(tmp_path / "a.pkl", data)
    before = peak_mb()
    read_plain_pickle(path)
    assert peak_mb() - before < 100


@pytest.mark.parametrize(
    ("start", "again"),
    [
        ("", "c_codecs\nencode\n(g0\nS'latin1'\ntR"),
        ("cnumpy\ndtype\n(S'S9000'\nI0\nI1\ntRp1\n", "cnumpy.core.multiarray\nscalar\n(g1\ng2\ntR"),
        ("cnumpy\ndtype\n(S'S1'\nI0\nI1\ntRp1\n", ARRAY_SHELL + "(I1\n(I100000\ntg1\nI0\ng0\ntb"),
    ],
)
def test_bytes_are_not_copied_again_and_again(tmp_path: Path, start: str, again: str) -> None:
    piece = b"X" + struct.pack("<I", 9000) + b"a" * 9000 + b"p2\n"
    data = TEXT + piece + start.encode() + again.encode() * 5000 + b"."
    path = write(tmp_path / "a.pkl", data)
    before = peak_mb()
    with pytest.raises(DataError, match="makes more of its bytes than it has"):
        read_plain_pickle(path)
    assert peak_mb() - before < 100


def test_files_too_large_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.pkl", pickle.dumps(list(range(1000))))
    monkeypatch.setattr(plain_pickle, "MAX_STEPS", 1000)
    with pytest.raises(DataError, match="more than 1,000 instructions"):
        read_plain_pickle(path)
    monkeypatch.setattr(plain_pickle, "MAX_BYTES", 1000)
    with pytest.raises(DataError, match="has more than 1000 B, too much"):
        read_plain_pickle(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_plain_pickle(tmp_path / "absent.pkl")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_plain_pickle(tmp_path)


def test_damage_anywhere_is_one_line_or_other_data(tmp_path: Path) -> None:
    """Bytes changed at random: an error for people or some data, never anything else."""
    generator = np.random.default_rng(0)
    honest = pickle.dumps({"a": [np.arange(3), np.float64(1), "b"], "c": (b"d", 2.0)}, 2)
    path = tmp_path / "a.pkl"
    messages = []
    for _ in range(400):
        data = bytearray(honest)
        for place in generator.integers(0, len(data), 2):
            data[place] = generator.integers(256)
        path.write_bytes(data)
        try:
            read_plain_pickle(path)
        except DataError as error:
            messages.append(str(error))
    assert not any("\n" in message for message in messages)
    assert 100 < len(messages) < 400
    assert not TRACE
