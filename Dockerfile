# syntax=docker/dockerfile:1
FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# What was downloaded and built stays in BuildKit's caches: a change of our own code does not build the dependencies again.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --locked --release --bin gateway && cp target/release/gateway /gateway

FROM debian:bookworm-slim
# uid 10001 owns nothing but its state and run directories; everything else may be mounted read-only.
RUN useradd --uid 10001 --no-create-home --home-dir /var/lib/gateway --shell /usr/sbin/nologin gateway \
 && install -d -o gateway -g gateway -m 0700 /var/lib/gateway \
 && install -d -o gateway -g gateway -m 0755 /run/gateway \
 && install -d /etc/gateway
COPY --from=build /gateway /usr/local/bin/gateway
USER gateway
ENV USER=gateway
WORKDIR /var/lib/gateway
VOLUME ["/var/lib/gateway"]
EXPOSE 80 443
# 80 and 443 need no capability: Docker lets every user bind them (net.ipv4.ip_unprivileged_port_start=0).
# The master reaps what others leave behind, so no init is needed in front of it; TERM drains.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s CMD ["gateway", "-c", "/etc/gateway/gateway.toml", "status"]
ENTRYPOINT ["gateway"]
CMD ["-c", "/etc/gateway/gateway.toml"]
