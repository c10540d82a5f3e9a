"""The servo bus's packets: golden bytes of the maker's manual, and damaged ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.so100 import protocol
from hardware.so100.protocol import Fault, Instruction, Packet, Parser
from hardware.so100.registers import EPROM_END, MEMORY_SIZE, REGISTERS, register

pytestmark = pytest.mark.quick

GOAL = bytes.fromhex("0008 0000 E803")  # 2048, time 0, speed 1000
GOLDEN = {
    "FFFF010201FB": protocol.ping(1),
    "FFFF0104023802BE": protocol.read(1, 0x38, 2),
    "FFFFFE04030501F4": protocol.write(0xFE, 5, b"\x01"),
    "FFFF0109032A00080000E803D5": protocol.write(1, 0x2A, GOAL),
    "FFFF0109042A00080000E803D4": Packet(1, Instruction.REG_WRITE, b"\x2a" + GOAL),
    "FFFFFE0205FA": Packet(protocol.BROADCAST, Instruction.ACTION),
    "FFFFFE06823808010236": protocol.sync_read([1, 2], 0x38, 8),
    "FFFFFE20832A06"
    + "".join(f"0{i}00080000E803" for i in (1, 2, 3, 4))
    + "58": protocol.sync_write(0x2A, {i: GOAL for i in (1, 2, 3, 4)}),
    "FFFF010200FC": Packet(1, 0),
    "FFFF0104001805DD": Packet(1, 0, (1304).to_bytes(2, "little")),
    "FFFF010A00000800000000791E55": Packet(1, 0, bytes.fromhex("000800000000791E")),
    "FFFF020A00FF0700000000772353": Packet(2, 0, bytes.fromhex("FF07000000007723")),
}


@pytest.mark.parametrize("wire", GOLDEN)
def test_golden_bytes_both_ways(wire):
    assert GOLDEN[wire].encode() == bytes.fromhex(wire)
    parser = Parser()
    assert list(parser.feed(bytes.fromhex(wire))) == [GOLDEN[wire]]
    assert parser.dropped == 0


packets = st.builds(
    Packet,
    st.integers(0, 0xFE),
    st.integers(0, 255),
    st.binary(max_size=60),
)


@given(st.lists(packets, max_size=5), st.integers(1, 20))
def test_packets_come_through_in_pieces_of_any_size(sent, size):
    stream = b"".join(p.encode() for p in sent)
    parser, found = Parser(), []
    for i in range(0, len(stream), size):
        found += parser.feed(stream[i : i + size])
    assert found == sent


@given(st.binary(max_size=300))
def test_random_bytes_never_crash_the_parser(data):
    parser = Parser()
    for packet in parser.feed(data):
        assert packet.encode() in data
    parser.clear()
    # Zeros cannot begin a packet, so nothing is left of the damage.
    assert list(parser.feed(protocol.ping(1).encode())) == [protocol.ping(1)]


@given(packets, st.integers(0, 1000), st.integers(1, 255))
def test_a_changed_byte_is_noticed(packet, at, change):
    wire = bytearray(packet.encode())
    wire[at % len(wire)] ^= change
    assert packet not in list(Parser().feed(bytes(wire)))


def test_a_good_packet_inside_damage_is_found():
    good = protocol.ping(3)
    damaged = bytes.fromhex("FFFF 01 09 03 2A") + good.encode()
    assert list(Parser().feed(damaged + bytes(9))) == [good]


@given(st.integers(-2047, 2047))
def test_signs_are_a_bit_not_a_complement(value):
    raw = protocol.encode_signed(value, 11)
    assert protocol.decode_signed(raw, 11) == value
    assert raw == (value if value >= 0 else 2048 - value)


def test_a_magnitude_too_large_is_refused():
    with pytest.raises(ValueError, match="2048 does not fit: at most 2047"):
        protocol.encode_signed(2048, 11)


def test_sync_write_wants_one_length():
    with pytest.raises(ValueError, match="one length"):
        protocol.sync_write(42, {1: b"\0", 2: b"\0\0"})


def test_fault_bits_have_names():
    assert Fault(0x21).words() == "voltage, overload"
    assert Fault(0).words() == "none"


def test_registers_do_not_overlap_and_fit():
    used = np.zeros(MEMORY_SIZE, int)
    for r in REGISTERS.values():
        used[r.address : r.address + r.size] += 1
        assert (r.address < EPROM_END) == (r.address + r.size <= EPROM_END)
    assert used.max() == 1
    assert (REGISTERS["Goal_Position"].address, register("Lock").address) == (42, 55)


@pytest.mark.parametrize("name", list(REGISTERS))
def test_defaults_survive_the_bytes(name):
    r = REGISTERS[name]
    assert r.decode(r.encode(r.default)) == r.default


def test_register_messages_name_what_is_wrong():
    with pytest.raises(ValueError, match=r"Torque_Limit = 1001: .* 0 to 1000"):
        register("Torque_Limit").encode(1001)
    with pytest.raises(KeyError, match="no register 'Gaol_Position'"):
        register("Gaol_Position")
