# What `cargo xtask image` writes without a container engine, for those who have one; `image/Dockerfile` takes a program that
# is built already.
FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake ca-certificates && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN target="$(uname -m)-unknown-linux-gnu" \
    && export "CARGO_TARGET_$(echo "$target" | tr 'a-z-' 'A-Z_')_RUSTFLAGS=-C target-feature=+crt-static" \
    && cargo build --release --locked --package mizzen --target "$target" \
    && mkdir -p /root-fs/usr/local/bin /root-fs/etc/ssl/certs /root-fs/tmp && chmod 1777 /root-fs/tmp \
    && cp "target/$target/release/mizzen" /root-fs/usr/local/bin/ \
    && cp /etc/ssl/certs/ca-certificates.crt /root-fs/etc/ssl/certs/ \
    && cp image/etc/passwd image/etc/group image/etc/nsswitch.conf /root-fs/etc/

# One Bookinfo service: `docker build --target bookinfo --build-arg SERVICE=reviews --build-arg VERSION=v3 .`
FROM scratch AS bookinfo
ARG SERVICE=productpage
ARG VERSION=v1
COPY --from=build /root-fs/ /
ENV PATH=/usr/local/bin BOOKINFO_SERVICE=$SERVICE SERVICE_VERSION=$VERSION BOOKINFO_LINGER=3
USER 1000:1000
ENTRYPOINT ["/usr/local/bin/mizzen", "bookinfo", "--linger", "3"]

FROM scratch
COPY --from=build /root-fs/ /
ENV PATH=/usr/local/bin
USER 1337:1337
ENTRYPOINT ["/usr/local/bin/mizzen"]
