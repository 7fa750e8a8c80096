# syntax=docker/dockerfile:1

# The gateway alone, static, for whatever NATS it is pointed at. compose.yaml brings one.
#
# Settings come from the environment (LANDFALL_NATS__URL) or from a file (`run --config /etc/landfall/landfall.toml`).
# Inside a container no listener is on the loopback interface, so `auth.mode = "open"` is refused: a file of devices is
# expected at /etc/landfall/devices.toml.

ARG RUST_VERSION=1.95
ARG ALPINE_VERSION=3.22

FROM rust:${RUST_VERSION}-alpine AS build
# A compiler and libc's headers for the few C and assembly files below (ring, mimalloc).
RUN apk add --no-cache build-base
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --release --locked --package landfall \
    && install -D -m 0755 target/release/landfall /out/landfall \
    && strip /out/landfall

FROM alpine:${ALPINE_VERSION}
LABEL org.opencontainers.image.title="Landfall" \
      org.opencontainers.image.description="Device connectivity gateway: MQTT, CoAP and UDP devices in, NATS events out" \
      org.opencontainers.image.licenses="Apache-2.0 OR MIT"
RUN addgroup -S -g 10001 landfall \
    && adduser -S -D -H -u 10001 -G landfall -h /var/lib/landfall -s /sbin/nologin landfall \
    && install -d -o landfall -g landfall -m 0750 /var/lib/landfall /var/spool/landfall \
    && install -d -m 0755 /etc/landfall
COPY --from=build /out/landfall /usr/local/bin/landfall
COPY LICENSE LICENSE-APACHE LICENSE-MIT /usr/share/licenses/landfall/

ENV LANDFALL_MQTT__LISTEN=tcp://0.0.0.0:1883 \
    LANDFALL_COAP__LISTEN=udp://0.0.0.0:5683 \
    LANDFALL_UDP__LISTEN=udp://0.0.0.0:7683 \
    LANDFALL_ADMIN__LISTEN=0.0.0.0:8080 \
    LANDFALL_NATS__STORE_DIR=/var/lib/landfall \
    LANDFALL_NATS__SPOOL_DIR=/var/spool/landfall \
    LANDFALL_AUTH__MODE=devices \
    LANDFALL_AUTH__DEVICES=/etc/landfall/devices.toml \
    LANDFALL_LOG__FORMAT=json

WORKDIR /var/lib/landfall
USER 10001:10001
EXPOSE 1883 8080 5683/udp 7683/udp
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s --retries=3 \
    CMD ["wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8080/readyz"]
ENTRYPOINT ["/usr/local/bin/landfall"]
CMD ["run"]
