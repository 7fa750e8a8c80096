"""A DTLS 1.2 client made of Mbed TLS (python-mbedtls).

It shakes hands with the cipher suites that it is given, in their order, or with all that Mbed TLS has, and a pre-shared key or
a certificate. Then each line of its standard input goes out as
one record, and each record that comes is told; the end of its input is a close_notify. Each line on stdout is one JSON
object that says what happened.
"""

import argparse
import json
import pathlib
import select
import socket
import sys

from mbedtls import pk, tls, x509
from mbedtls.exceptions import TLSError

PATIENCE = 10.0


def tell(what, **more):
    print(json.dumps({"what": what, **more}), flush=True)


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--suite", action="append", help="more than once: in this order")
    parser.add_argument("--identity")
    parser.add_argument("--psk", help="in hex")
    parser.add_argument("--cert", type=pathlib.Path)
    parser.add_argument("--key", type=pathlib.Path)
    parser.add_argument("--ca", type=pathlib.Path)
    return parser.parse_args()


def configuration(args):
    more = {}
    if args.psk is not None:
        more["pre_shared_key"] = (args.identity, bytes.fromhex(args.psk))
    if args.ca is not None:
        trusted = tls.TrustStore()
        trusted.add(x509.CRT.from_PEM(args.ca.read_text()))
        more["trust_store"] = trusted
    if args.cert is not None:
        certificate = x509.CRT.from_PEM(args.cert.read_text())
        more["certificate_chain"] = ((certificate,), pk.ECC.from_PEM(args.key.read_text()))
    if args.suite is not None:
        more["ciphers"] = tuple(args.suite)
    return tls.DTLSConfiguration(
        validate_certificates=args.ca is not None,
        lowest_supported_version=tls.DTLSVersion.DTLSv1_2,
        highest_supported_version=tls.DTLSVersion.DTLSv1_2,
        handshake_timeout_min=0.3,
        handshake_timeout_max=PATIENCE,
        **more,
    )


def shake(args):
    plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    plain.settimeout(PATIENCE)
    plain.connect((args.host, args.port))
    name = "localhost" if args.ca is not None else None
    channel = tls.ClientContext(configuration(args)).wrap_socket(plain, server_hostname=name)
    channel.do_handshake()
    return channel


def main():
    args = arguments()
    try:
        channel = shake(args)
    except (TLSError, OSError) as error:
        tell("failed", error=str(error))
        return 1
    tell("shaken", suite=channel.cipher())
    while True:
        ready, _, _ = select.select([sys.stdin, channel.fileno()], [], [])
        if sys.stdin in ready:
            line = sys.stdin.readline()
            if not line:
                break
            channel.send(line.rstrip("\n").encode())
            continue
        try:
            data = channel.recv(16384)
        except (TLSError, OSError) as error:
            tell("ended", error=str(error))
            return 0
        if not data:
            tell("ended")
            return 0
        tell("received", text=data.decode(errors="replace"))
    channel.shutdown(socket.SHUT_RDWR)
    tell("closed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
