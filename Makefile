# qrun -- see README.md. `make` builds ./qrun; `make demo` and `make check` are the two commands to know.
#
#   make [SAN=1] [CI=1] [ARCH=native|x86-64-v3|...] [CC=gcc|clang] [V=1]
#   make demo | check [T=pattern] | check-full | golden GOLDEN=DIR | bench | docs
#   make install PREFIX=/usr/local [DESTDIR=] | uninstall | clean | deps

VERSION := 0.1.0
CC      ?= gcc
ARCH    ?= native
PREFIX  ?= /usr/local

BUILD   := build/$(if $(SAN),san,release)
FOLDERS := engine quant nets data optim io run

# What the library needs is checked by name, so that a missing one costs no compile.
RUN_PKGS  := libdnnl-dev libfftw3-dev libyaml-dev zlib1g-dev libstb-dev libjansson-dev \
             libprotobuf-c-dev protobuf-c-compiler pkg-config
TEST_PKGS := libcmocka-dev bats
OPT_PKGS  := libjpeg-dev

WARN   := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
          -Wcast-qual -Wvla -Wdouble-promotion $(if $(CI),-Werror)
CFLAGS ?= -O2 -g
# -ffp-contract=off: a fused multiply-add would round once where the originals round twice.
QFLAGS := -std=c11 -D_GNU_SOURCE -DQRUN_VERSION='"$(VERSION)"' -I. -I$(BUILD) $(CFLAGS) $(WARN) \
          -fopenmp -ffp-contract=off -fno-math-errno -fno-trapping-math \
          $(if $(SAN),-fsanitize=address$(comma)undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer,-march=$(ARCH))
comma  := ,
HAVE_JPEG := $(wildcard /usr/include/jpeglib.h)
QFLAGS += $(if $(HAVE_JPEG),-DHAVE_LIBJPEG)
LIBS   := -ldnnl -lfftw3f -lyaml -lz -ljansson -lprotobuf-c $(if $(HAVE_JPEG),-ljpeg) -lpthread -lm
Q := $(if $(V),,@)

SRC  := $(wildcard $(FOLDERS:%=%/*.c))
OBJ  := $(SRC:%.c=$(BUILD)/%.o)
LIBQ := $(BUILD)/libqrun.a

all: qrun

$(BUILD)/%.o: %.c | deps
	@mkdir -p $(dir $@)
	@echo "  CC    $<"
	$(Q)$(CC) $(QFLAGS) -MMD -MP -c -o $@ $<

$(LIBQ): $(OBJ)
	$(Q)rm -f $@ && ar rcs $@ $(OBJ)

.PHONY: all deps clean
deps:
	@:

clean:
	rm -rf build qrun

-include $(OBJ:.o=.d)
