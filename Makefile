# Landfall's commands. `make` lists them.

.DEFAULT_GOAL := help
.PHONY: help tools build run check test figures fuzz-smoke bench compare

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

tools: ## fetch what running and testing need into .tools/ (nats-server, interop clients)
	@scripts/tools.sh all

build: ## build the gateway
	cargo build --locked --package landfall

run: ## start the gateway with a demonstration device, print the events that it makes, keep running
	@scripts/run.sh

check: ## formatting, lints, documentation, licences: everything but the tests
	@scripts/check.sh

test: tools ## everything: the checks, then every test against a real nats-server
	@scripts/check.sh
	@scripts/test.sh

figures: tools ## crowds that end at once, a killed gateway, an outage: how late it is told (about three minutes)
	@scripts/figures.sh

fuzz-smoke: tools ## mutated packets and datagrams of every protocol at the real gateway, a canary beside them (about a minute)
	@scripts/fuzz-smoke.sh

bench: ## what a session, a timer, a packet, an event costs on this machine (about four minutes)
	@scripts/bench.sh

compare: ## beside mosquitto, nats-server's MQTT, rumqttd, libcoap and OpenSSL: the tables of docs/performance.md (about 15 minutes)
	@scripts/tools.sh nats
	@scripts/tools.sh peers
	@benches/compare/run.sh
