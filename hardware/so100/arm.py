"""The SO-100 / SO-101 behind the Robot contract of `control.py`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from act_minimal.support.errors import UserError
from act_minimal.support.validation import Bounds, check_settings

from ..cameras import Camera
from ..driver import ArmDriver, Health
from ..errors import BusError
from .bus import Bus
from .calibration import Calibration, check_sweep, load_calibration
from .kinematics import ARMS, JOINTS, Kinematics
from .protocol import Fault
from .registers import CURRENT_UNIT, MODEL_NUMBER, MULTI_TURN, REGISTERS

IDS: tuple[int, ...] = (1, 2, 3, 4, 5, 6)
# One block holds all that is measured: position, speed, load, voltage, temperature,
# status, current. Reading it costs 0.8 ms more a tick than the positions alone.
BLOCK = REGISTERS["Present_Position"].address
BLOCK_SIZE = REGISTERS["Present_Current"].address + 2 - BLOCK
STALL_TORQUE = 3.5  # N·m, to give `effort` its unit: load is a share of it


@dataclass
class SO100Config:
    """Which arm, and how it is driven."""

    port: str = "/dev/ttyACM0"
    """Its serial port; `act ports` finds it."""
    calibration: Path = Path("calibration.json")
    """Its calibration file, ours or LeRobot's."""
    model: Literal["so100", "so101"] = "so100"
    """so100 or so101: the same servos and driver, other lengths."""
    fps: Annotated[float, Bounds(1, 200)] = 30.0
    """Control ticks a second, Hz."""

    def __post_init__(self) -> None:
        """Refuses what cannot be meant."""
        check_settings(self)


@dataclass(kw_only=True)
class ServoHealth(Health):
    """What the servos say about themselves, one entry a servo."""

    voltage: np.ndarray  # V
    current: np.ndarray  # A


class SO100(ArmDriver):
    """The driver of a SO-100 or SO-101; see `ArmDriver`.

    `connect` moves nothing: torque comes on with each goal set to where its joint is.

    Args:
        config: which arm.
        cameras: by name.

    Raises:
        BusError: from every method, naming the servo and the port.
    """

    action_dim = 6
    joints = JOINTS

    def __init__(self, config: SO100Config, cameras: dict[str, Camera] | None = None):
        super().__init__(config.fps, cameras)
        self.config, self.name = config, config.model
        self.kinematics = ARMS[config.model]
        self.buses = (servo_bus(config.port),)
        self.calibration: Calibration | None = None
        self._strength: dict[int, int] = {}  # Torque_Limit of each servo

    @property
    def bus(self) -> Bus:
        """Its only one."""
        return self.buses[0]

    def start(self) -> None:
        """Open the bus, check every servo, set it up, and hold the arm where it is.

        Raises:
            UserError: a servo is missing, of another model or firmware, starved,
                or holds another calibration than the file.
        """
        self.calibration = load_calibration(self.config.calibration)
        self.bus.open()
        check_servos(self.bus)
        check_calibration(
            self.bus, self.calibration, self.config.calibration, self.kinematics
        )
        configure(self.bus)
        self.enable()
        for camera in self.sources.values():
            camera.open()

    def measure(self) -> tuple[np.ndarray, np.ndarray, ServoHealth]:
        """State (6,) rad and opening, velocity (6,), and health, in one exchange."""
        data = self.bus.sync_read(IDS, BLOCK, BLOCK_SIZE)
        block = {name: _column(data, name) for name in _MEASURED}
        assert self.calibration is not None
        state = self.calibration.state_of(block["Present_Position"], self.kinematics)
        speed = block["Present_Velocity"].astype(float)
        velocity = self.calibration.velocity_of(speed, self.kinematics)
        faults = {
            joint: Fault(int(status) & 0x2F)
            for joint, status in zip(JOINTS, block["Status"], strict=True)
            if status & 0x2F
        }
        load = block["Present_Load"] / 1000 * self.kinematics.sense
        health = ServoHealth(
            temperature=block["Present_Temperature"].astype(float),
            load=load,
            torque=load * STALL_TORQUE,
            age=np.zeros(len(load)),  # all in the exchange that just ended
            faults=faults,
            voltage=block["Present_Voltage"] / 10,
            current=block["Present_Current"] * CURRENT_UNIT,
        )
        return state, velocity, health

    def send(self, state: np.ndarray) -> None:
        """Joint targets (6,), rad and opening, to the servos."""
        assert self.calibration is not None
        steps = self.calibration.steps_of(state, self.kinematics)
        self.bus.write_all(
            "Goal_Position", dict(zip(IDS, (int(s) for s in steps), strict=True))
        )

    def enable(self) -> None:
        """Torque on, without a jump.

        A servo keeps its last goal, from whenever that was, and would run there at
        once: each goal is first set to the measured position, and read back.
        """
        here = self.bus.read_all(IDS, "Present_Position")
        for id, steps in here.items():
            self.bus.write(id, "Goal_Position", steps)
        for id, goal in self.bus.read_all(IDS, "Goal_Position").items():
            if goal != here[id]:
                raise BusError(
                    f"servo {id} holds goal {goal} instead of {here[id]}; torque "
                    "stays off"
                )
        self._strength = self.bus.read_all(IDS, "Torque_Limit")
        self.torque = True
        for id in IDS:
            self.bus.write(id, "Torque_Enable", 1)

    def soften(self, seconds: float = 2.0) -> None:
        """Let the torque fade, then off: an arm that cannot be laid down sinks slowly.

        Args:
            seconds: that it takes.
        """
        for share in np.linspace(1.0, 0.0, 21)[1:]:
            self.weaken(float(share))
            self.clock.wait_until(self.clock.now() + seconds / 20)
        self.disable()  # a servo that did not hear it stays as weak as it is
        self.weaken(1.0)

    def weaken(self, share: float) -> None:
        """Leave the servos this share of their strength; nobody has to answer."""
        limits = {id: round(share * limit) for id, limit in self._strength.items()}
        self.bus.write_all("Torque_Limit", limits)

    def disable(self) -> None:
        """Torque off, whatever it takes; every servo is tried.

        Raises:
            BusError: some servo did not confirm it.
        """
        deaf = []
        for id in IDS:
            for _ in range(5):
                try:
                    self.bus.write(id, "Torque_Enable", 0)
                    break
                except BusError:
                    continue
            else:
                deaf.append(id)
        self.torque = bool(deaf)
        if deaf:
            raise BusError(
                f"servos {deaf} on {self.config.port} did not confirm that their "
                "torque is off; support the arm and pull the servos' power plug",
                deaf,
            )


_MEASURED = (
    "Present_Position",
    "Present_Velocity",
    "Present_Load",
    "Present_Voltage",
    "Present_Temperature",
    "Status",
    "Present_Current",
)


def _column(data: dict[int, bytes], name: str) -> np.ndarray:
    """(6,) one register out of the measured block."""
    r = REGISTERS[name]
    start = r.address - BLOCK
    return np.array([r.decode(data[id][start : start + r.size]) for id in IDS])


def servo_bus(port: str) -> Bus:
    """The bus at a port, not yet open; messages call its servos by their joints."""
    return Bus(port, names=dict(zip(IDS, JOINTS, strict=True)))


def check_servos(bus: Bus) -> None:
    """Whether all servos are there, of the right model, of one firmware, and fed.

    Raises:
        UserError: names the servo and what is wrong with it.
    """
    models: dict[int, int] = {}
    silent = []
    for id in IDS:
        try:
            models[id] = bus.read(id, "Model_Number")
        except BusError:
            silent.append(id)
    if silent:
        raise BusError(bus.silence(silent, list(IDS)), silent)
    for id, model in models.items():
        if model != MODEL_NUMBER:
            raise UserError(
                f"{bus.who(id)} on {bus.port} is of model {model}, expected "
                f"{MODEL_NUMBER} (STS3215)"
            )
    versions = {
        id: (
            bus.read(id, "Firmware_Major_Version"),
            bus.read(id, "Firmware_Minor_Version"),
        )
        for id in IDS
    }
    if len(set(versions.values())) > 1:
        listed = ", ".join(f"{id}: {a}.{b}" for id, (a, b) in versions.items())
        raise UserError(
            f"the servos on {bus.port} have different firmware versions ({listed}); "
            "bring them to one version with the maker's tool FD"
        )
    for id in IDS:
        fault = bus.traffic.faults.get(id, Fault(0))
        if fault & Fault.VOLTAGE:
            volts = bus.read(id, "Present_Voltage") / 10
            low = bus.read(id, "Min_Voltage_Limit") / 10
            high = bus.read(id, "Max_Voltage_Limit") / 10
            raise UserError(
                f"{bus.who(id)} gets {volts} V, expected {low} to {high} V; a 12 V "
                "supply destroys 7.4 V servos, and a weak one lets them reset"
            )
        if fault:
            raise UserError(
                f"{bus.who(id)} reports: {fault.words()}; switch the servos' power "
                "off and on, and let it cool down"
            )


def check_calibration(
    bus: Bus,
    calibration: Calibration,
    path: Path,
    arm: Kinematics,
    *,
    leader: bool = False,
) -> None:
    """Whether a file was swept from end to end, and the servos hold what it says.

    Args:
        bus: open.
        calibration: what the file says.
        path: of the file.
        arm: which arm that is.
        leader: a leader's; its gripper is a handle.

    Raises:
        UserError: names the joints that are short, or the first difference.
    """
    check_sweep(calibration, arm, str(path), leader=leader)
    flags = f" --robot {arm.name}" if arm.name != "so100" else ""
    flags += " --leader" if leader else ""
    for joint, motor in calibration.motors.items():
        wanted = {
            "Homing_Offset": motor.homing_offset,
            "Min_Position_Limit": motor.range_min,
            "Max_Position_Limit": motor.range_max,
        }
        for name, value in wanted.items():
            found = bus.read(motor.id, name)
            if found != value:
                raise UserError(
                    f"{joint}: {name} is {found} in the servo on {bus.port}, but "
                    f"{value} in {path}; write the file into the servos with: "
                    f"act calibrate --port {bus.port} --calibration {path}{flags} "
                    "--restore, or calibrate again"
                )


def configure(bus: Bus) -> None:
    """Set the servos up for a follower, torque off; the same values as LeRobot's.

    P is lowered against shaking, and the gripper's strength is halved, so that it can
    squeeze for long without harm.
    """
    for id in IDS:
        bus.write(id, "Torque_Enable", 0)
        bus.write(id, "Lock", 0)
        settings: dict[str, Any] = {
            "Return_Delay_Time": 0,
            "Maximum_Acceleration": 254,
            "Acceleration": 254,
            "Operating_Mode": 0,
            "P_Coefficient": 16,
            "I_Coefficient": 0,
            "D_Coefficient": 32,
            "Torque_Limit": bus.read(id, "Max_Torque_Limit"),  # once softened, weak
        }
        phase = bus.read(id, "Phase")
        if phase & MULTI_TURN:
            settings["Phase"] = phase & ~MULTI_TURN
        if id == IDS[-1]:
            settings |= {
                "Max_Torque_Limit": 500,
                "Torque_Limit": 500,
                "Protection_Current": 250,
                "Overload_Torque": 25,
            }
        for name, value in settings.items():
            bus.write(id, name, value)
        bus.write(id, "Lock", 1)
