# Every command that a person needs here. `make` alone lists them.
#
# On a fresh Debian machine `make demo` and `make test` install by apt what they miss; that needs root. Rust comes
# from rustup (https://rustup.rs).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PREFIX ?= /usr/local
DESTDIR ?=
PROTECT ?= 0
BENCH_FLAGS ?=
SHIM_BENCH_FLAGS ?=

# rustup's place, for shells that don't have it in PATH.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin

# .cargo/config.toml names the host as the target, so programs come out in a folder of that name.
TARGET_DIR := $(abspath $(or $(CARGO_TARGET_DIR),target))
HOST_TUPLE = $(shell PATH='$(PATH)' rustc -vV | sed -n 's/^host: //p')
RELEASE = $(TARGET_DIR)/$(HOST_TUPLE)/release
BINARY := $(CURDIR)/target/release/coracle
# The shim, by the name that makes io.containerd.coracle.v2 of it.
SHIM_NAME := containerd-shim-coracle-v2
SHIM := $(CURDIR)/target/release/$(SHIM_NAME)
MANUAL := $(CURDIR)/target/manual
CARGO := cargo
# One target directory for the workspace and for the packages that stand beside it.
BESIDE = $(shell grep -ls '^\[workspace\]' integration/Cargo.toml integration/*/Cargo.toml)

HAS_LIBSECCOMP = echo '\#include <seccomp.h>' | cc -E -x c - >/dev/null 2>&1

# The parts of `make test`, in their order.
TEST_PARTS := unit integration guest

.PHONY: help build man demo test test-unit test-integration test-guest test-shim-long lint format bench bench-guest bench-seccomp install uninstall clean \
	needs-build needs-libseccomp needs-test

help: ## List the targets
	@echo 'make TARGET, where TARGET is one of'
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/\1\t\2/p' Makefile | \
		while IFS=$$'\t' read -r name about; do printf '  %-18s %s\n' "$$name" "$$about"; done
	@echo 'Variables: PREFIX (/usr/local), DESTDIR, PROTECT=1, BENCH_FLAGS, SHIM_BENCH_FLAGS, CARGO_TARGET_DIR'

build: needs-build ## Build the static release binaries, coracle and its shim, in target/release
	@$(CARGO) build --release --locked -p coracle -p coracle-shim
	@mkdir -p $(dir $(BINARY))
	@for binary in $(BINARY) $(SHIM); do \
		ln -f $(RELEASE)/$${binary##*/} $$binary 2>/dev/null || cp -f $(RELEASE)/$${binary##*/} $$binary; \
		if file=$$(readelf -lW $$binary 2>/dev/null) && grep -q INTERP <<<"$$file"; then \
			echo "build: $$binary is not static: is RUSTFLAGS set? It hides the flags of .cargo/config.toml" >&2; exit 1; \
		fi; \
	done

man: needs-build ## Write man pages and shell completions to target/manual
	@rm -rf $(MANUAL) && mkdir -p $(MANUAL)
	@$(CARGO) run -q --locked -p coracle --example manual -- $(MANUAL)

demo: ## Show a container's life step by step, and what errors look like (root)
	@integration/demo

test: ## Install what tests need, then run all tests (root); the last line says how many passed
	@mkdir -p target && : >target/test.log
	@status=0 begun=$$EPOCHSECONDS; \
	for part in $(TEST_PARTS); do \
		echo "== $$part tests"; \
		$(MAKE) test-$$part 2>&1 | tee -a target/test.log || status=1; \
	done; \
	echo '== result'; \
	awk -v status=$$status -v begun=$$begun -v now=$$EPOCHSECONDS ' \
		/^test result: / { passed += $$4; failed += $$6; ignored += $$8 } \
		/^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$$/ { passed += $$1; failed += $$3; ignored += $$5 } \
		END { \
			bad = status || failed || !passed; \
			if (bad && !failed) print "a part of the tests did not run to its end: see above"; \
			printf "test result: %s. %d passed; %d failed; %d ignored; 0 measured; 0 filtered out; finished in %ds\n", \
				bad ? "FAILED" : "ok", passed, failed, ignored, now - begun; \
			exit bad \
		}' target/test.log

test-unit: needs-build needs-libseccomp ## Run the unit tests only
	@status=0; \
	$(CARGO) test --locked --no-fail-fast --workspace --exclude coracle-integration || status=1; \
	for manifest in $(filter-out integration/Cargo.toml,$(BESIDE)); do \
		$(CARGO) test --locked --no-fail-fast --target-dir $(TARGET_DIR) --manifest-path $$manifest || status=1; \
	done; \
	if $(HAS_LIBSECCOMP); then \
		(cd seccomp/differential && $(CARGO) test --locked --no-fail-fast --target-dir $(TARGET_DIR)) || status=1; \
	else \
		echo 'the comparison with libseccomp: skipped: libseccomp-dev is not installed'; \
	fi; \
	exit $$status

test-integration: needs-test build ## Run the behaviour tests only, against the release binary (root)
	@CORACLE_BIN=$${CORACLE_BIN:-$(BINARY)} $(CARGO) test --locked --no-fail-fast --target-dir $(TARGET_DIR) \
		--manifest-path integration/Cargo.toml -p coracle-integration

test-guest: build ## Run the tests in a guest machine only (systemd, pure cgroup v2); builds it the first time (root)
	@integration/guest/tests/run-tests

test-shim-long: needs-test build ## Run the shim's tests with all of containerd's own shims beside it, and 10,000 execs (root)
	@CORACLE_YARDSTICK=all CORACLE_EXEC_CYCLES=$${CORACLE_EXEC_CYCLES:-10000} \
		CORACLE_BIN=$${CORACLE_BIN:-$(BINARY)} $(CARGO) test --locked --no-fail-fast --target-dir $(TARGET_DIR) \
		--manifest-path integration/Cargo.toml -p coracle-integration --test shim --test shim_faults

lint: ## Check formatting, and run clippy with warnings as errors
	@for manifest in Cargo.toml $(BESIDE); do \
		$(CARGO) fmt --manifest-path $$manifest --all --check; \
		$(CARGO) clippy --locked --target-dir $(TARGET_DIR) --manifest-path $$manifest --workspace --all-targets \
			-- -D warnings; \
	done
	@# Only checked: the library of the fuzzer is C++, and needed to link alone.
	@CUSTOM_LIBFUZZER_PATH=/libfuzzer.a $(CARGO) check --locked --target-dir $(TARGET_DIR) \
		--manifest-path seccomp/fuzz/Cargo.toml

format: ## Format the code
	@for manifest in Cargo.toml $(BESIDE); do $(CARGO) fmt --manifest-path $$manifest --all; done

bench: build ## Measure against crun, runc and the bare system calls (root); BENCH_FLAGS=--help lists options
	@integration/peers/fetch >/dev/null
	@$(CARGO) build --release --locked --target-dir $(TARGET_DIR) --manifest-path integration/floor/Cargo.toml \
		-p coracle-floor
	@$(CARGO) build --release --locked --target-dir $(TARGET_DIR) --manifest-path integration/bench/Cargo.toml \
		-p coracle-bench
	@. integration/cache.bash; CORACLE_PEERS=$${CORACLE_PEERS:-$$cache_home/coracle-peers} \
		$(RELEASE)/coracle-bench --coracle $(BINARY) $(BENCH_FLAGS)
	@$(MAKE) bench-seccomp bench-shim

bench-guest: build ## Measure against crun and runc in the guest machine, by cgroupfs and systemd (root)
	@integration/peers/fetch >/dev/null
	@$(CARGO) build --release --locked --target-dir $(TARGET_DIR) --manifest-path integration/bench/Cargo.toml \
		-p coracle-bench
	@CORACLE_BIN=$(BINARY) BENCH_DIR=$(RELEASE) integration/guest/bench $(BENCH_FLAGS)

bench-shim: build ## Measure the shim against containerd's own (root); SHIM_BENCH_FLAGS=--help lists options
	@$(CARGO) build --release --locked --target-dir $(TARGET_DIR) --manifest-path integration/bench/Cargo.toml \
		-p coracle-bench --bin coracle-bench-shim
	@CORACLE_BIN=$(BINARY) CORACLE_SHIM_BIN=$(SHIM) $(RELEASE)/coracle-bench-shim $(SHIM_BENCH_FLAGS)

bench-seccomp: needs-build needs-libseccomp ## Measure the seccomp compiler and its programs against libseccomp
	@if $(HAS_LIBSECCOMP); then \
		cd seccomp/differential && $(CARGO) run -q --release --locked --target-dir $(TARGET_DIR) \
			--bin bench; \
	else \
		echo 'bench-seccomp: skipped: libseccomp-dev is not installed'; \
	fi

bindir = $(DESTDIR)$(PREFIX)/bin
mandir = $(DESTDIR)$(PREFIX)/share/man/man1
bashdir = $(DESTDIR)$(PREFIX)/share/bash-completion/completions
zshdir = $(DESTDIR)$(PREFIX)/share/zsh/site-functions
fishdir = $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d

# What is installed below bin.
installed = $(bindir)/coracle $(bindir)/$(SHIM_NAME)

# Takes the immutable flag away, where an earlier install has set it.
unprotect = for binary in $(installed); do \
		if lsattr -d $$binary 2>/dev/null | cut -d' ' -f1 | grep -q i; then chattr -i $$binary; fi; \
	done

install: ## Install what was built below PREFIX (builds it when missing); PROTECT=1 makes the binaries immutable
	@[ -x $(BINARY) ] && [ -x $(SHIM) ] || $(MAKE) build
	@[ -d $(MANUAL)/man ] || $(MAKE) man
	@install -d $(bindir) $(mandir) $(bashdir) $(zshdir) $(fishdir)
	@$(unprotect)
	@for binary in $(BINARY) $(SHIM); do \
		install -m 755 $$binary $(bindir)/.$${binary##*/}.new; \
		mv -f $(bindir)/.$${binary##*/}.new $(bindir)/$${binary##*/}; \
	done
	@install -m 644 $(MANUAL)/man/*.1 $(mandir)/
	@install -m 644 $(MANUAL)/completions/coracle.bash $(bashdir)/coracle
	@install -m 644 $(MANUAL)/completions/_coracle $(zshdir)/_coracle
	@install -m 644 $(MANUAL)/completions/coracle.fish $(fishdir)/coracle.fish
	@case '$(PROTECT)' in \
	1) chattr +i $(installed) || { \
		echo "install: $(bindir)/coracle and the shim are installed, but not protected: chattr +i needs root and a file system that has the flag" >&2; \
		exit 1; } ;; \
	0 | '') ;; \
	*) echo "install: PROTECT must be 0 or 1, not '$(PROTECT)'" >&2; exit 2 ;; \
	esac

uninstall: ## Remove what install has installed, a protected binary too
	@$(unprotect)
	@rm -f $(installed) $(mandir)/coracle.1 $(mandir)/coracle-*.1 \
		$(bashdir)/coracle $(zshdir)/_coracle $(fishdir)/coracle.fish

clean: ## Remove all that was built
	@rm -rf $(MANUAL) target/test.log
	@for manifest in Cargo.toml $(BESIDE); do \
		$(CARGO) clean --target-dir $(TARGET_DIR) --manifest-path $$manifest; done

# A linker and the static C library; cargo itself is not ours to install.
needs-build:
	@command -v cargo >/dev/null || { echo 'cargo is missing: install Rust from https://rustup.rs' >&2; exit 1; }
	@if ! command -v cc >/dev/null || [ "$$(cc -print-file-name=libc.a)" = libc.a ]; then \
		command -v apt-get >/dev/null || { echo 'a C linker and libc.a are missing: install them first' >&2; exit 1; }; \
		export DEBIAN_FRONTEND=noninteractive; \
		install="apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends gcc libc6-dev"; \
		$$install >/dev/null 2>&1 || { apt-get -q update && $$install; } >&2; \
	fi

# What the seccomp compiler is held against. Without root its users skip themselves.
needs-libseccomp:
	@if ! $(HAS_LIBSECCOMP) && command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		export DEBIAN_FRONTEND=noninteractive; \
		install="apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends libseccomp-dev"; \
		$$install >/dev/null 2>&1 || { apt-get -q update && $$install; } >&2; \
	fi

needs-test:
	@integration/install-test-needs
	@integration/peers/fetch >/dev/null
	@integration/peers/fetch-containerd >/dev/null
	@integration/peers/fetch-docker >/dev/null
