# qrun -- see README.md. `make` builds ./qrun; `make demo` and `make check` are the two commands to know.
#
#   make [ARCH=native|x86-64-v3|...] [CI=1: warnings are errors] [SAN=1: sanitizers, build/san/qrun] [V=1]
#   make demo | check [T=pattern] | check-full | golden GOLDEN=DIR | bench [NET=resnet20|resnet18|fat|quant] | docs
#   make install [PREFIX=/usr/local] [DESTDIR=] | uninstall | clean

.DEFAULT_GOAL := all
VERSION := 0.1.0
CC      := $(if $(filter default,$(origin CC)),gcc,$(CC))
ARCH    ?= native
PREFIX  ?= /usr/local
BUILD   := build/$(if $(SAN),san,release)
FOLDERS := engine quant nets data optim io run
Q       := $(if $(V),,@)
comma   := ,

PACKAGES      := libdnnl-dev libfftw3-dev libyaml-dev zlib1g-dev libstb-dev libjpeg-dev libjansson-dev libprotobuf-c-dev \
                 protobuf-c-compiler libonnx-dev fonts-dejavu-core
TEST_PACKAGES := libcmocka-dev bats

# Packages are looked for once, before anything else is read: what the build then finds depends on them.
ifeq ($(filter clean uninstall,$(MAKECMDGOALS)),)
include build/config.mk
endif
build/config.mk: Makefile .ci/deps
	$(Q)mkdir -p build && sh .ci/deps $(PACKAGES)
	$(Q)if [ -f /usr/include/jpeglib.h ]; then echo 'HAVE_JPEG := 1'; else echo 'HAVE_JPEG :='; fi > $@
build/test-packages: Makefile .ci/deps
	$(Q)mkdir -p build && sh .ci/deps $(TEST_PACKAGES) && touch $@
build/judges: .ci/judges .ci/deps test/onnx/package-lock.json
	$(Q)mkdir -p build && sh .ci/judges && touch $@

CFLAGS ?= -O2 -g
REVISION := $(shell git describe --always --dirty=+dirty 2>/dev/null || echo unknown)
WARN   := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wcast-qual -Wvla \
          -Wdouble-promotion $(if $(CI),-Werror)
# -ffp-contract=off: a fused multiply-add rounds once where the originals round twice.
FLAGS  := -std=c11 -D_GNU_SOURCE -DQRUN_VERSION='"$(VERSION)"' $(if $(HAVE_JPEG),-DHAVE_LIBJPEG) -I. -I$(BUILD) $(CFLAGS) \
          $(WARN) -fopenmp -ffp-contract=off -fno-math-errno -fno-trapping-math \
          $(if $(SAN),-fsanitize=address$(comma)undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer,-march=$(ARCH) -mprefer-vector-width=512)
LIBS   := -ldnnl -lfftw3f -lyaml -lz -ljansson -lprotobuf-c $(if $(HAVE_JPEG),-ljpeg) -lpthread -lm

SRC   := $(wildcard $(FOLDERS:%=%/*.c))
PROTO := $(patsubst io/%.proto,$(BUILD)/io/%.pb-c.c,$(wildcard io/*.proto)) $(BUILD)/io/onnx.pb-c.c
OBJ   := $(SRC:%.c=$(BUILD)/%.o) $(PROTO:.c=.o)
LIB   := $(BUILD)/libqrun.a

# Each test/test_*.c is a program of its own; the other files there are linked where they are needed.
TEST_MAIN := $(patsubst %.c,$(BUILD)/%,$(wildcard test/test_*.c))
TEST_MORE := $(patsubst %.c,$(BUILD)/%.o,$(wildcard test/golden_*.c test/probe/*.c test/support/*.c))
TEST_LIB  := $(BUILD)/libtest.a

.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: all demo check check-full golden bench docs install uninstall clean tests

all: $(BUILD)/qrun
ifeq ($(SAN),)
all: qrun
qrun: $(BUILD)/qrun
	$(Q)ln -f $< $@
endif

$(BUILD)/qrun: $(BUILD)/main.o $(LIB)
	@echo "  LD    $@"
	$(Q)$(CC) $(FLAGS) -o $@ $< $(LIB) $(LIBS)

$(BUILD)/%.o: %.c build/config.mk
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$(Q)$(CC) $(FLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/%.pb-c.o: $(BUILD)/%.pb-c.c
	$(Q)$(CC) $(FLAGS) -w -c -o $@ $<

$(BUILD)/io/%.pb-c.c $(BUILD)/io/%.pb-c.h: io/%.proto build/config.mk
	@mkdir -p $(@D)
	@echo "  PROTO $<"
	$(Q)protoc-c --proto_path=. --c_out=$(BUILD) $<

# Of libonnx-dev only this description of the format is used; nothing of it is linked.
ONNX_PROTO := /usr/include/onnx/onnx.proto
$(BUILD)/io/onnx.pb-c.c $(BUILD)/io/onnx.pb-c.h: $(ONNX_PROTO) build/config.mk
	@mkdir -p $(@D)
	@echo "  PROTO $<"
	$(Q)protoc-c --proto_path=$(dir $<) --c_out=$(BUILD)/io $<
$(ONNX_PROTO): build/config.mk ;

# The letters of pictures as PNG, put into the program; another TrueType font: make PLOT_FONT=FILE.
PLOT_FONT ?= /usr/share/fonts/truetype/dejavu/DejaVuSans.ttf
$(BUILD)/io/canvas_png.o: FLAGS += -DPLOT_FONT='"$(PLOT_FONT)"'
$(BUILD)/io/canvas_png.o: $(PLOT_FONT)
$(PLOT_FONT): build/config.mk ;

# Generated headers first; afterwards the .d files know who needs them.
$(BUILD)/run/manifest.o: FLAGS += -DQRUN_REVISION='"$(REVISION)"' -DQRUN_CFLAGS='"$(CFLAGS) ARCH=$(ARCH)"'
$(SRC:%.c=$(BUILD)/%.o) $(BUILD)/main.o: | $(PROTO) $(BUILD)/smoke_yml.h
$(BUILD)/run/config.o: $(BUILD)/smoke_yml.h
$(BUILD)/smoke_yml.h: configs/smoke.yml
	@mkdir -p $(@D)
	$(Q){ echo '/* made from $< by the Makefile */'; echo 'static const char smoke_yml[] ='; \
	    sed 's/[\\"]/\\&/g; s/^/    "/; s/$$/\\n"/' $<; echo '    ;'; } > $@

$(LIB): $(OBJ)
	$(Q)rm -f $@ && ar rcs $@ $^

$(TEST_LIB): $(TEST_MORE)
	$(Q)rm -f $@ && ar rcs $@ $^

$(BUILD)/test/%.o: build/test-packages
$(TEST_MAIN) $(BUILD)/test/golden: $(BUILD)/test/%: $(BUILD)/test/%.o $(TEST_LIB) $(LIB)
	@echo "  LD    $@"
	$(Q)$(CC) $(FLAGS) -o $@ $< $(TEST_LIB) $(LIB) $(LIBS) -lcmocka
$(BUILD)/test/bench: $(BUILD)/test/bench.o $(BUILD)/test/bench_fat.o $(BUILD)/test/bench_quant.o $(LIB)
	$(Q)$(CC) $(FLAGS) -o $@ $^ $(LIBS)

tests: all $(TEST_MAIN) $(BUILD)/test/golden

# Trains a 4-bit ResNet on procedurally drawn images, then evaluates the saved checkpoint.
demo: all
	rm -rf results/demo
	$(BUILD)/qrun configs/smoke.yml log_dir=results/demo
	$(BUILD)/qrun configs/smoke.yml log_dir=results/demo test_only=true pretrained_file=results/demo

check: tests build/judges
	$(Q)BUILD=$(BUILD) sh test/run.sh '$(T)'
check-full: tests build/judges
	$(Q)BUILD=$(BUILD) QRUN_FULL=1 sh test/run.sh '$(T)'

GOLDEN ?= test/golden
golden: $(BUILD)/test/golden
	$(Q)$< $(GOLDEN)

NET ?= resnet20
bench: $(BUILD)/test/bench
	$(Q)GOMP_SPINCOUNT=$${GOMP_SPINCOUNT:-1000} $< $(NET)

docs: all
	$(BUILD)/qrun docs keys > docs/keys.md
	$(BUILD)/qrun docs keywords > docs/keywords.md

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/qrun $(DESTDIR)$(PREFIX)/share/doc/qrun
	install -m 755 $(BUILD)/qrun $(DESTDIR)$(PREFIX)/bin/qrun
	cp -R configs experiments $(DESTDIR)$(PREFIX)/share/qrun/
	cp -R README.md LICENSE docs $(DESTDIR)$(PREFIX)/share/doc/qrun/

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/qrun
	rm -rf $(DESTDIR)$(PREFIX)/share/qrun $(DESTDIR)$(PREFIX)/share/doc/qrun

clean:
	rm -rf build qrun

-include $(OBJ:.o=.d) $(BUILD)/main.d $(wildcard $(BUILD)/test/*.d $(BUILD)/test/probe/*.d $(BUILD)/test/support/*.d)
