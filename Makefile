# gqlua -- `make` builds ./gqlua, ./gq.so and ./libgq.a; `make run` and `make test` are all a newcomer
# needs; `make help` lists the rest. `make config=debug|asan` builds apart; `make V=1` shows its commands.

# ==== settings: each may be given on the command line ====================================

# release: optimised. debug: assertions and gq.debug, no optimisation. asan: debug with the address and
# undefined-behaviour sanitizers, for the tests.
config = release

# Where `make install` puts bin/, lib/, include/, share/ and lib/lua/5.4/; a packager's LIBDIR may be lib/<triplet>.
PREFIX = /usr/local
LIBDIR = $(PREFIX)/lib

CC = gcc
AR = ar

# A packager's own, from the environment too: after the optimisation of the configuration, before what the
# numbers depend on (`required` below).
CPPFLAGS ?=
CFLAGS ?=
LDFLAGS ?=
WARNINGS = -Wall -Wextra -Wno-unused-parameter

# The vector instructions of each copy of kernels.c.
AVX2 = -mavx2 -mfma
AVX512 = -mavx512f -mavx512dq -mavx512bw -mavx512vl -mfma

# Debian's directory of the pthread build of OpenBLAS, named so that no other variant is linked or
# loaded instead: an OpenMP one would bring its own threads.
OPENBLAS = $(shell pkg-config --variable=libdir openblas 2>/dev/null)

# Not asked of cppcheck: system headers; that a call after a check for NULL may raise and not return;
# an older twin of a check that is on, which takes arrays written by the callee for unset.
cppcheck_wrong = missingIncludeSystem nullPointerRedundantCheck nullPointerArithmeticRedundantCheck legacyUninitvar

# Test processes at a time, and seconds after which one counts as hanging.
TEST_JOBS = 2
TEST_LIMIT = 300

# What `make run` runs.
MAIN_JOB = examples/train_ou.lua

# ==== nothing to change below ============================================================

# No rules but these.
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules

build := build/$(config)
flags_release := -O2
flags_debug := -O0 -g -DGQ_DEBUG
flags_asan := -O1 -g -DGQ_DEBUG -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
ifeq ($(flags_$(config)),)
  $(error config=$(config): expected release, debug or asan)
endif

# Products of the release stand at the top, of other configurations in their build folder. A shared
# object with a sanitizer cannot be loaded into an ordinary lua5.4, so asan has no gq.so.
top := $(if $(filter release,$(config)),.,$(build))
products := $(top)/gqlua $(top)/libgq.a $(if $(filter asan,$(config)),,$(top)/gq.so)

# Found or missing.
lua_cflags := $(shell pkg-config --cflags lua5.4 2>/dev/null)
lua_libs := $(shell pkg-config --libs lua5.4 2>/dev/null)
libedit := $(shell pkg-config --libs libedit 2>/dev/null)
gnuplot := $(shell command -v gnuplot 2>/dev/null)
, := ,
openblas_libs := $(if $(OPENBLAS),-L$(OPENBLAS) -Wl$(,)-rpath$(,)$(OPENBLAS)) -lopenblas
zlib := $(if $(shell grep -sl '<zlib.h>' runtime/*/*.c bindings/*.c),-lz)

# Sources by folder. gqlua*.c and repl*.c belong to the program alone: they meet the terminal.
kernels := runtime/exec/cpu/kernels.c
runtime := $(filter-out $(kernels),$(wildcard runtime/*/*.c runtime/exec/cpu/*.c))
program := $(wildcard bindings/gqlua*.c bindings/repl*.c)
bindings := $(filter-out $(program),$(wildcard bindings/*.c))
embedded := $(sort $(wildcard lua/gq/*.lua lua/gq/*/*.lua))
sources_c := $(sort $(wildcard runtime/*.h runtime/*/*.[ch] runtime/*/*/*.[ch] bindings/*.[ch] examples/*.c tests/c/*.[ch] \
  tests/cuda/*.[ch]))

variants := portable $(if $(filter x86_64,$(shell uname -m)),avx2 avx512)
kernel_objects := $(if $(wildcard $(kernels)),$(variants:%=$(build)/runtime/exec/cpu/kernels.%.o))
library := $(runtime:%.c=$(build)/%.o) $(kernel_objects) $(bindings:%.c=$(build)/%.o) \
  $(if $(wildcard bindings/bind.h),$(build)/embedded.o)
objects := $(library) $(program:%.c=$(build)/%.o)
tests_c := $(patsubst %.c,$(build)/%,$(wildcard tests/c/*_test.c))

# No -ffast-math: it deletes the checks for NaN. No -march=native: kernels are chosen at run time.
# No contraction to fused multiply-add, so that one source gives the same bits on every machine.
# Nothing reads errno after a mathematical function, and without it square roots vectorise.
required := -std=gnu11 -fno-fast-math -ffp-contract=off -fno-math-errno -fPIC -pthread
compile := $(CC) $(WARNINGS) $(flags_$(config)) $(CFLAGS) $(required) -I. $(lua_cflags) \
  $(if $(libedit),-DGQ_LIBEDIT) $(CPPFLAGS)
link := $(CC) $(filter -fsanitize%,$(flags_$(config))) $(LDFLAGS)
libs := $(openblas_libs) -lcjson $(zlib) -lm -pthread

# Quiet: a word for each product, unless V=1.
Q := $(if $(filter 1,$(V)),,@)
say = $(if $(filter 1,$(V)),,@echo '  $(1)  $@')

version := $(shell sed -n 's/^\#define GQ_VERSION "\(.*\)"/\1/p' runtime/gq.h)
soname := libgq.so.$(basename $(version))

.PHONY: all run test test-cuda test-gpu test-slurm deb mirror check ctest embed lint format install uninstall clean objects found setup help shared
all: found $(products)

help:
	@echo 'make              ./gqlua, ./gq.so, ./libgq.a'
	@echo 'make run          the default training: MAIN_JOB=$(MAIN_JOB)'
	@echo 'make test         all tests; TESTS="tests/ode_spec.lua ...": these; TEST_JOBS=$(TEST_JOBS)'
	@echo 'make check        the slow tests too'
	@echo 'make mirror       some tests with the second device that tests have as the default'
	@echo 'make cuda         gq_cuda.so; make test-cuda: its tests, on an emulator; make test-gpu: on a GPU, with times'
	@echo 'make test-slurm   a sweep by a Slurm of its own on this machine (apt-get install slurm-wlm munge)'
	@echo 'make embed        build/$(config)/embed, the C program of examples/embed.c'
	@echo 'make shared       the library of version $(version) as a shared object'
	@echo 'make luacats      build/gq.d.lua, what editors ask of the interface'
	@echo 'make install      to PREFIX=$(PREFIX), below DESTDIR where that is given; make uninstall'
	@echo 'make deb          Debian packages in build/deb (apt-get install dpkg-dev debhelper fakeroot lintian)'
	@echo 'make lint, format, clean'
	@echo 'Settings: config=release|debug|asan, CC, CFLAGS, CPPFLAGS, LDFLAGS, PREFIX, LIBDIR, V=1 (shows commands);'
	@echo 'the head of the Makefile has the rest, with a reason each'

found:
	@$(if $(lua_libs),,echo 'Lua 5.4: headers missing; run scripts/setup'; exit 1)
	@echo 'OpenBLAS: $(if $(OPENBLAS),found in $(OPENBLAS),missing; run scripts/setup)'
	@echo 'libedit: $(if $(libedit),found,missing; the prompt will have no history and no line editing)'
	@echo 'gnuplot: $(if $(gnuplot),found,missing; plots to files need it)'
	@echo 'CUDA: $(if $(wildcard $(top)/gq_cuda.so),gq_cuda.so is built,make cuda builds gq_cuda.so); it needs a driver to run, and no toolkit to build'

objects: $(objects)

# ---- compiling ----

$(build)/%.o: %.c $(build)/flags
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(compile) -MMD -MP -c $< -o $@

$(build)/runtime/exec/cpu/kernels.portable.o: simd =
$(build)/runtime/exec/cpu/kernels.avx2.o: simd = $(AVX2)
$(build)/runtime/exec/cpu/kernels.avx512.o: simd = $(AVX512)
$(kernel_objects): $(build)/runtime/exec/cpu/kernels.%.o: $(kernels) $(build)/flags
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(compile) $(simd) -DGQ_KERNELS=$* -MMD -MP -c $< -o $@

$(build)/embedded.c: scripts/embed.lua $(embedded) $(build)/flags
	$(call say,LUA)
	$(Q)lua5.4 scripts/embed.lua $@ $(embedded)
$(build)/embedded.o: $(build)/embedded.c
	$(call say,CC)
	$(Q)$(compile) -MMD -MP -c $< -o $@

# Rewritten only when the way of compiling or linking, or the list of sources, has changed.
.PHONY: force
$(build)/flags: force
	@mkdir -p $(@D)
	@echo '$(compile) $(AVX2) $(AVX512) $(embedded)' | cmp -s - $@ || \
	  echo '$(compile) $(AVX2) $(AVX512) $(embedded)' > $@
$(build)/members: force
	@mkdir -p $(@D)
	@echo '$(library) $(LDFLAGS)' | cmp -s - $@ || echo '$(library) $(LDFLAGS)' > $@

%.d: ;
-include $(objects:.o=.d) $(patsubst %.c,$(build)/%.d,$(wildcard runtime/exec/cuda/*.c)) $(tests_c:=.d)

# ---- linking ----

$(top)/libgq.a: $(library) $(build)/members
	@rm -f $@.new
	$(call say,AR)
	$(Q)$(AR) qcs $@.new $(library)
	@mv $@.new $@

# Linked under another name and moved, so that a running program never sees half of it.
# C modules of a script take Lua's symbols from the shared liblua that both they and gqlua load.
$(top)/gqlua: $(objects) $(build)/members
	$(call say,LD)
	$(Q)$(link) -o $@.new $(objects) $(lua_libs) $(libedit) $(libs) -ldl
	@mv $@.new $@

# No liblua: the interpreter that loads it has one. nodelete: it owns threads that outlive a state.
$(top)/gq.so: $(library) $(build)/members
	$(call say,LD)
	$(Q)$(link) -shared -Wl,-z,nodelete -Wl,-Bsymbolic -o $@.new $(library) $(libs)
	@mv $@.new $@

# The library for C programs, with liblua: luaopen_gq is in it, too.
shared: $(build)/$(soname)
$(build)/$(soname): $(library) $(build)/members
	$(call say,LD)
	$(Q)$(link) -shared -Wl,-z,nodelete -Wl,-Bsymbolic -Wl,-soname,$(soname) -o $@ $(library) $(lua_libs) $(libs)

# ---- CUDA: gq_cuda.so, opened at the first use of the device; and libraries that stand in for NVIDIA's ----

cuda_sources := $(wildcard runtime/exec/cuda/*.c)
cuda_objects := $(cuda_sources:%.c=$(build)/%.o) $(build)/runtime/exec/layout.o $(build)/runtime/tensor/shape.o \
  $(build)/runtime/base/text.o $(build)/runtime/base/pool.o
emulator := $(build)/cuda/libcuda.so.1 $(build)/cuda/libnvrtc.so.13 $(build)/cuda/libcublasLt.so.13 $(build)/cuda/fork.so

.PHONY: cuda emulator
cuda: $(top)/gq_cuda.so
emulator: $(emulator)

$(build)/runtime/exec/cuda/texts.o: runtime/exec/cuda/prelude.h runtime/exec/cuda/kernels.h runtime/exec/cuda/solves.h \
  runtime/exec/cuda/solves_back.h runtime/exec/cpu/vmath.h runtime/exec/cpu/update.h runtime/method/control.h runtime/method/trail.h \
  runtime/method/loop.h runtime/method/lane.h runtime/base/normal.h runtime/base/bridge.h

$(top)/gq_cuda.so: $(cuda_objects) $(build)/members
	$(call say,LD)
	$(Q)$(link) -shared -Wl,-Bsymbolic -o $@.new $(cuda_objects) -lm -pthread -ldl
	@mv $@.new $@

$(build)/cuda/libcuda.so.1: tests/cuda/libcuda.c tests/cuda/emu.c tests/cuda/races.c tests/cuda/emu.h runtime/exec/cuda/api.h $(build)/flags
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(compile) -shared -Wl,-soname,libcuda.so.1 -o $@ tests/cuda/libcuda.c tests/cuda/emu.c tests/cuda/races.c -ldl
$(build)/cuda/libnvrtc.so.13: tests/cuda/libnvrtc.c runtime/exec/cuda/api.h $(build)/flags
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(compile) -shared -Wl,-soname,libnvrtc.so.13 -o $@ tests/cuda/libnvrtc.c
$(build)/cuda/libcublasLt.so.13: tests/cuda/libcublasLt.c runtime/exec/cuda/api.h $(build)/flags
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(compile) -shared -Wl,-soname,libcublasLt.so.13 -o $@ $< $(openblas_libs) -ldl
# Kernels for a device that is not here: scripts/gpu_bundle.
.PHONY: keep
keep: $(build)/cuda/keep
$(build)/cuda/keep: tests/cuda/keep.c $(build)/runtime/exec/cuda/module.o $(build)/runtime/exec/cuda/api.o \
  $(build)/runtime/exec/cuda/device.o $(top)/libgq.a
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(compile) $(LDFLAGS) -o $@ $^ $(lua_libs) $(libs) -ldl
$(build)/cuda/fork.so: tests/cuda/fork.c $(build)/flags
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(compile) -shared -o $@ $<

# ---- running and testing ----

setup:
	@scripts/setup build

run:
	@scripts/setup build
	@$(MAKE) --no-print-directory all
	./gqlua $(MAIN_JOB)

test:
	@scripts/setup test
	@$(MAKE) --no-print-directory all testbinaries
	@scripts/test $(config) --jobs $(TEST_JOBS) --limit $(TEST_LIMIT) $(TESTS)

check:
	@scripts/setup test
	@$(MAKE) --no-print-directory all testbinaries
	@scripts/test $(config) --jobs $(TEST_JOBS) --limit 3600 --slow $(TESTS)
	@scripts/test $(config) --jobs $(TEST_JOBS) --limit 3600 --slow --device mirror $(on_mirror) $(later_on_mirror)
	@$(MAKE) --no-print-directory cuda_flags=--slow test-cuda
	@$(MAKE) --no-print-directory config=asan test-cuda

# With the second device that tests have as the default: nothing but its backend may touch its numbers.
on_mirror := $(patsubst %,tests/%_spec.lua,ode engines gradient opt train independent)
later_on_mirror := $(patsubst %,tests/%_spec.lua,adams implicit stops dense events part states moments quadrature parity \
  reversible leapfrog heuristic regularise interpolate defaults flow nn functional autograd derivatives trace ops tensor \
  spatial times paths sde sde_theta)
mirror:
	@scripts/setup test
	@$(MAKE) --no-print-directory all
	@scripts/test $(config) --jobs $(TEST_JOBS) --limit $(TEST_LIMIT) --device mirror $(on_mirror)

# On the emulator: what a device must show, the CUDA backend's own specs, then those of operations, gradients and solves with it as the device.
gpu_specs := tests/cuda/gpu_spec.lua
cuda_specs := $(filter-out $(gpu_specs),$(wildcard tests/cuda/*_spec.lua))
cuda_as_default := $(patsubst %,tests/%_spec.lua,ops tensor autograd nn spatial opt train regularise gradient moments \
  sde sde_gradient sde_theta independent memory implicit arrays defaults)
cuda_by_tiles := $(patsubst %,tests/%_spec.lua,ode engines reversible)
cuda_flags =
test-cuda:
	@scripts/setup cuda
	@$(MAKE) --no-print-directory all cuda emulator
	@LD_LIBRARY_PATH=$(CURDIR)/$(build)/cuda GQ_CUDA_EMULATOR=$(CURDIR)/$(build)/cuda \
	  GQ_CUDA_CACHE=$(CURDIR)/$(build)/kernels scripts/cuda_tests $(config) $(TEST_JOBS) '$(cuda_flags)' '$(gpu_specs)' '$(cuda_specs)' \
	  '$(cuda_as_default)' '$(cuda_by_tiles)'

test-slurm: all
	@scripts/test_slurm $(top)/gqlua

# On a GPU of this machine: specs tagged #gpu, then training steps timed. It fails where there is none.
test-gpu:
	@scripts/setup test
	@$(MAKE) --no-print-directory all cuda
	@scripts/gpu_tests $(config)

ctest: testbinaries
	@scripts/test $(config) --jobs $(TEST_JOBS) --limit $(TEST_LIMIT) tests/c/*_test.c

.PHONY: testbinaries
testbinaries: $(tests_c) $(build)/embed

$(build)/tests/c/%: tests/c/%.c $(top)/libgq.a
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(compile) $(LDFLAGS) -MMD -MP -MF $@.d $< -o $@ $(top)/libgq.a $(lua_libs) $(libs) -ldl

# Convolutions beside sgemm: a table.
.PHONY: rates
rates: $(build)/rates
	@$<
$(build)/rates: scripts/rates.c $(top)/libgq.a
	@mkdir -p $(@D)
	$(compile) $(LDFLAGS) $< -o $@ $(top)/libgq.a $(lua_libs) $(libs) -ldl

# The example of a C program that carries the runtime, and Lua with it.
embed: $(build)/embed
$(build)/embed: examples/embed.c $(top)/libgq.a
	$(call say,CC)
	$(Q)$(compile) -Iruntime $(LDFLAGS) -MMD -MP -MF $@.d $< -o $@ $(top)/libgq.a $(lua_libs) $(libs) -ldl

# The interpreter of scripts/bits.lua, over the library of this or of another checkout.
.PHONY: bitshost
bitshost:
	$(compile) scripts/bits.c -o $(host) -Wl,--wrap=gq_program_new $(library_of) $(lua_libs) $(libs) -ldl

# All speak before lint fails.
lint:
	@scripts/setup lint
	@bad=0; set -x; \
	luacheck --quiet lua tests scripts examples || bad=1; \
	lua5.4 scripts/circles.lua || bad=1; \
	clang-format --dry-run -Werror $(filter %.c,$(sources_c)) || bad=1; \
	cppcheck --quiet -j $(TEST_JOBS) --error-exitcode=1 --inline-suppr --std=c11 --enable=warning,performance \
	  $(cppcheck_wrong:%=--suppress=%) -I. $(filter %.c,$(sources_c)) || bad=1; \
	exit $$bad

format:
	clang-format -i $(filter %.c,$(sources_c))

# ---- installing ----

# What editors are told of the interface, from the texts of gq.help.
.PHONY: luacats
luacats: build/gq.d.lua
build/gq.d.lua: scripts/luacats.lua $(top)/gqlua
	$(call say,LUA)
	$(Q)$(top)/gqlua scripts/luacats.lua $@

to := $(DESTDIR)$(PREFIX)
to_lib := $(DESTDIR)$(LIBDIR)

# openblas.pc asks for gfortran's development files, as a whole static program needs them, which ours is not.
define pkgconfig
prefix=$(PREFIX)
libdir=$(LIBDIR)

Name: gqlua
Description: Neural ODEs and SDEs, trained by quadrature: the C library and its Lua module
Version: $(version)
Requires.private: lua5.4
Libs: -L$${libdir} -lgq
Libs.private: $(openblas_libs) -lcjson $(zlib) -lm -ldl -pthread
Cflags: -I$${prefix}/include/gqlua
endef
export pkgconfig

install: all shared luacats
	install -d $(to)/bin $(to_lib)/lua/5.4 $(to_lib)/pkgconfig $(to)/include/gqlua $(to)/share/man/man1 \
	  $(to)/share/gqlua/examples/gallery $(to)/share/gqlua/library
	install -m 755 $(top)/gqlua $(to)/bin/
	install -m 644 $(top)/libgq.a $(to_lib)/
	install -m 755 $(build)/$(soname) $(to_lib)/libgq.so.$(version)
	ln -sf libgq.so.$(version) $(to_lib)/$(soname)
	ln -sf libgq.so.$(version) $(to_lib)/libgq.so
	install -m 755 $(top)/gq.so $(to_lib)/lua/5.4/
	$(if $(wildcard $(top)/gq_cuda.so),install -m 755 $(top)/gq_cuda.so $(to_lib)/)
	echo "$$pkgconfig" > $(to_lib)/pkgconfig/gqlua.pc
	install -m 644 scripts/gqlua.1 $(to)/share/man/man1/
	install -m 644 examples/*.lua examples/*.csv examples/embed.c $(to)/share/gqlua/examples/
	install -m 644 examples/gallery/* $(to)/share/gqlua/examples/gallery/
	install -m 644 build/gq.d.lua $(to)/share/gqlua/library/
	cd runtime && for f in $$($(CC) -MM gq.h | tr -d '\\' | cut -d: -f2-); do \
	  install -D -m 644 "$$f" "$(to)/include/gqlua/$$f"; done

uninstall:
	rm -f $(to)/bin/gqlua $(to_lib)/gq_cuda.so $(to_lib)/libgq.a $(to_lib)/libgq.so $(to_lib)/$(soname) $(to_lib)/libgq.so.$(version) \
	  $(to_lib)/lua/5.4/gq.so $(to_lib)/pkgconfig/gqlua.pc $(to)/share/man/man1/gqlua.1
	rm -rf $(to)/include/gqlua $(to)/share/gqlua

deb:
	@scripts/deb $(version) $(basename $(version))

clean:
	rm -rf build
	rm -f gqlua gq.so gq_cuda.so libgq.a
