"""A device made of aiocoap.

Plain, or over tinydtls with a pre-shared key. It reads what the gateway offers, registers when told to, publishes by POST,
PUT and a non-confirmable POST, uploads a body in blocks, observes its commands and answers as many as it is told to, and
leaves. Each line on stdout is one JSON object that says what happened.
"""

import argparse
import asyncio
import hashlib
import json
import sys

import aiocoap
from aiocoap import NON, Code, Message

PATIENCE = 20.0


def tell(what, **more):
    print(json.dumps({"what": what, **more}), flush=True)


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--id", required=True)
    parser.add_argument("--tenant")
    parser.add_argument("--key")
    parser.add_argument("--psk", help="in hex: coaps over tinydtls, --id is the PSK identity")
    parser.add_argument("--lifetime", type=int, help="register in /rd for so many seconds")
    parser.add_argument("--upload", type=int, default=65536, help="bytes of the body that goes in blocks")
    parser.add_argument("--commands", type=int, default=0, help="answer so many commands, then leave")
    return parser.parse_args()


class Device:
    def __init__(self, context, args):
        self.context = context
        host = f"[{args.host}]" if ":" in args.host else args.host
        self.base = f"coap://{host}:{args.port}"
        self.identity = [f"ep={args.id}"]
        if args.psk is not None:
            # The channel says who it is.
            self.base, self.identity = f"coaps://{host}:{args.port}", []
            secret = {"psk": bytes.fromhex(args.psk), "client-identity": args.id.encode()}
            context.client_credentials.load_from_dict({f"{self.base}/*": {"dtls": secret}})
        if args.tenant is not None:
            self.identity.append(f"t={args.tenant}")
        if args.key is not None:
            self.identity.append(f"key={args.key}")

    def message(self, code, path, queries=(), **more):
        message = Message(code=code, uri=self.base, **more)
        message.opt.uri_path = tuple(path)
        message.opt.uri_query = tuple(self.identity) + tuple(queries)
        return message

    async def ask(self, step, message):
        answer = await asyncio.wait_for(self.context.request(message).response, PATIENCE)
        tell(step, code=answer.code.dotted, length=len(answer.payload))
        if not answer.code.is_successful():
            raise RuntimeError(f"{step}: {answer.code} {answer.payload!r}")
        return answer

    async def register(self, lifetime):
        answer = await self.ask("registered", self.message(Code.POST, ["rd"], [f"lt={lifetime}"]))
        place = answer.opt.location_path
        await self.ask("refreshed", self.message(Code.POST, place))
        return place

    async def publish(self, upload):
        await self.ask("posted", self.message(Code.POST, ["measure", "post"], payload=b'{"by":"post"}', content_format=50))
        await self.ask("put", self.message(Code.PUT, ["measure", "put"], payload=b"by put", content_format=0))
        if upload:
            body = bytes(i % 251 for i in range(upload))
            tell("uploading", sha256=hashlib.sha256(body).hexdigest())
            await self.ask("uploaded", self.message(Code.POST, ["measure", "body"], payload=body, content_format=42))
        await self.ask("posted-non", self.message(Code.POST, ["measure", "non"], payload=b"by non", _mtype=NON))

    async def commands(self, count):
        request = self.context.request(self.message(Code.GET, ["command"], observe=0))
        first = await asyncio.wait_for(request.response, PATIENCE)
        tell("observing", code=first.code.dotted, observed=first.opt.observe is not None)
        notifications = aiter(request.observation)
        next_one, left, seen = first, count, set()
        while True:
            place = next_one.opt.location_path
            if place and place not in seen:
                seen.add(place)
                await self.answer(place, next_one)
                left -= 1
            if left <= 0:
                break
            next_one = await asyncio.wait_for(anext(notifications), PATIENCE)
        request.observation.cancel()

    async def answer(self, place, command):
        names = [query.removeprefix("name=") for query in command.opt.location_query if query.startswith("name=")]
        tell(
            "command",
            id=place[-1],
            place="/".join(place),
            name=names[0] if names else None,
            length=len(command.payload),
            sha256=hashlib.sha256(command.payload).hexdigest(),
        )
        answer = b'{"length":%d}' % len(command.payload)
        await self.ask("answered", self.message(Code.POST, place, ["status=200"], payload=answer, content_format=50))


async def main():
    args = arguments()
    context = await aiocoap.Context.create_client_context()
    device = Device(context, args)
    try:
        offer = Message(code=Code.GET, uri=f"{device.base}/.well-known/core")
        links = await device.ask("discovered", offer)
        tell("links", text=links.payload.decode())
        place = await device.register(args.lifetime) if args.lifetime else None
        await device.publish(args.upload)
        if args.commands:
            await device.commands(args.commands)
        if place:
            await device.ask("deregistered", device.message(Code.DELETE, place))
    except Exception as error:
        tell("failed", error=f"{type(error).__name__}: {error}")
        return 1
    finally:
        await context.shutdown()
    tell("done")
    return 0


sys.exit(asyncio.run(main()))
