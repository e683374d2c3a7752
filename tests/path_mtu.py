"""What a program is told when a datagram of its does not fit; ping's own words change from version to version."""

SENDER = """
import errno, socket, sys
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO: linux/in.h
one.connect((sys.argv[1], 33434))
try:
    one.send(bytes(int(sys.argv[2])))
    print("sent")
except OSError as error:
    print(errno.errorcode[error.errno], one.getsockopt(socket.IPPROTO_IP, 14))  # IP_MTU
"""


def send_unfragmented(address: str, size: int) -> list[str]:
    """Return a command that sends a UDP datagram with `size` bytes of data, and prints «sent», or the error and the
    MTU.
    """
    return ["python3", "-c", SENDER, address, str(size)]
