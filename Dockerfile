# The image of every Penstock service: the code in a virtual environment, a user without rights, no secret.
# Build arguments are none; versions are those of constraints.txt.
FROM python:3.11.14-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/penstock
WORKDIR /src
# dependencies first, so that a change of the code does not install them again
COPY pyproject.toml constraints.txt README.md ./
RUN /opt/penstock/bin/python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
print('\n'.join(p['dependencies'] + p['optional-dependencies']['exchange']))" > needed.txt \
 && /opt/penstock/bin/pip install -c constraints.txt -r needed.txt
COPY schemas schemas
COPY operators operators
COPY telemetry telemetry
COPY brokers brokers
COPY sources sources
COPY sinks sinks
COPY dataflows dataflows
COPY research research
COPY cli cli
RUN /opt/penstock/bin/pip install --no-deps .

FROM python:3.11.14-slim-bookworm
RUN groupadd --gid 10001 penstock \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/penstock --shell /usr/sbin/nologin penstock \
 && install -d -o penstock -g penstock /var/lib/penstock /var/cache/penstock
COPY --from=build /opt/penstock /opt/penstock
# compiled kernels go to the cache: they depend on the processor, so they are not part of the image
ENV PATH=/opt/penstock/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    XDG_CACHE_HOME=/var/cache/penstock PENSTOCK_LOG_FORMAT=json PENSTOCK_METRICS_HOST=0.0.0.0
WORKDIR /var/lib/penstock
USER 10001:10001
ENTRYPOINT ["penstock"]
CMD ["--help"]
