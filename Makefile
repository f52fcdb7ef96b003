# Each target installs what is missing and does nothing twice.
#   make build    the program: build/proviso
#   make demo     the main job, on SmolLM2-135M-Instruct
#   make test     all tests
.PHONY: build demo test test-install model lint format bench install clean

PREFIX ?= /usr/local

build: build/build.ninja
	@cmake --build build --target proviso_program

build/build.ninja:
	@scripts/setup build
	@cmake --preset release

model:
	@scripts/setup model

demo: build model
	@scripts/demo

test: build/build.ninja model
	@cmake --build build --target proviso_program proviso_tests
	@scripts/run-tests build

test-install: build/build.ninja
	@cmake --build build --target proviso proviso_program
	@tests/install/run build

lint: build/build.ninja
	@scripts/setup lint
	@scripts/lint build

format:
	@scripts/setup lint
	@git ls-files '*.cpp' '*.hpp' | xargs clang-format-16 -i

bench: build/build.ninja model
	@cmake --build build --target proviso_program proviso_bench
	@python3 bench/run.py

install: build
	@cmake --build build
	@cmake --install build --prefix $(PREFIX)

clean:
	@rm -rf build build-*
