#!/bin/sh
# test/layering.sh -- who may include whom (docs/architecture.md), every method in its registry, generated documentation current,
# every configuration valid, files of a readable length. TAP on stdout; QRUN names the program.
set -u
qrun=${QRUN:-build/release/qrun}
folders='engine quant nets optim io data run'
tmp=$(mktemp -d "${TMPDIR:-/tmp}/qrun-layering.XXXXXX") || exit 1
trap 'rm -rf "$tmp"' EXIT

# TITLE: passes when stdin is empty; else its lines are what is wrong. Stands at the end of pipes, so the count is kept in a file.
nothing() {
    echo . >>"$tmp/count"
    n=$(($(wc -l <"$tmp/count")))
    cat >"$tmp/wrong"
    if [ -s "$tmp/wrong" ]; then
        echo "not ok $n - $1"
        sed 's/^/# /' "$tmp/wrong"
    else
        echo "ok $n - $1"
    fi
}

# FOLDER...: "FILE:LINE INCLUDED" of every #include there
includes() {
    find "$@" -name '*.[ch]' -o -name '*.def' | sort | xargs grep -nE '^[[:space:]]*#[[:space:]]*include' |
        sed -E 's/^([^:]*:[0-9]+):[[:space:]]*#[[:space:]]*include[[:space:]]*[<"]([^>"]*)[>"].*/\1 \2/'
}

# FOLDER ALLOWED...: own headers only from these folders
may_include() {
    from=$1
    shift
    allowed=$(echo "$*" | tr ' ' '|')
    includes "$from" | grep -E " ($(echo "$folders test" | tr ' ' '|'))/" | grep -vE " ($allowed)/" | nothing "$from includes only $*"
}

# HEADERS (a pattern) PLACES (a pattern): a library's headers are seen only there
only_in() {
    includes $folders main.c | grep -E " ($1)$" | grep -vE "^($2)" | nothing "$3"
}

may_include engine engine
may_include quant engine quant
may_include nets engine nets
may_include optim engine optim
may_include io engine io
may_include data engine io data
may_include run engine quant nets optim io data run
includes $folders main.c | awk '$2 ~ /\// && $2 !~ /^(engine|quant|nets|optim|io|data|run|stb|sys|google)\//' |
    nothing 'own headers are named from the top'

only_in 'dnnl.*' 'engine/prim_dnnl\.h:' 'oneDNN only through engine/prim_dnnl.h'
only_in '.*prim_dnnl\.h' 'engine/prim[_a-z]*\.c:' 'engine/prim_dnnl.h only in engine/prim*.c'
only_in 'fftw3.*' 'quant/fat\.c:' 'FFTW only in quant/fat.c'
only_in 'yaml\.h' 'io/yaml\.c:' 'libyaml only in io/yaml.c'
only_in 'stb/stb_truetype\.h|stb/stb_image_write\.h' 'io/canvas_png\.c:' 'pixels of pictures only in io/canvas_png.c'
only_in 'stb/stb_image\.h|jpeglib\.h|jerror\.h|turbojpeg\.h' 'data/decode\.c:' 'image decoders only in data/decode.c'
only_in 'zlib\.h' 'io/' 'zlib only in io'
only_in 'jansson\.h' '(io|run)/' 'jansson only in io and run'
only_in '.*\.pb-c\.h|protobuf-c/.*' 'io/' 'protobuf only in io'
only_in 'mpi\.h' 'engine/comm\.c:' 'MPI only in engine/comm.c'

# The probes show what a method may use: the same as the files of quant/, and their own header.
includes test/probe/fold.c test/probe/variants.c test/probe/counting.c test/probe/latent.c |
    grep -E " ($(echo "$folders" | tr ' ' '|'))/" | grep -vE ' (engine|quant)/' | nothing 'probe methods need engine and quant only'

grep -lE '^(static )?const QMethod [a-z0-9_]+ = \{' quant/*.c | while read -r f; do
    grep -oE '^const QMethod [a-z0-9_]+' "$f" | while read -r _ _ name; do
        grep -q "&$name,$" quant/registry.c || echo "$f: $name"
    done
    grep -nE '^static const QMethod' "$f" | sed "s|^|$f:|"
done | nothing 'every method stands in quant/registry.c'
"$qrun" list quant >"$tmp/listed" 2>&1 || echo "exit status $?" >>"$tmp/listed"
sed -nE 's/^[[:space:]]*\.name = "([a-z0-9_-]+)".*/\1/p' $(grep -lE '^const QMethod' quant/*.c) | while read -r name; do
    grep -qw "$name" "$tmp/listed" || echo "$name"
done | nothing "'qrun list quant' shows every method"

for page in keys keywords; do
    "$qrun" docs $page >"$tmp/page.md" 2>&1
    diff "$tmp/page.md" docs/$page.md | head -n 20 | nothing "docs/$page.md is what 'qrun docs $page' prints"
done

# A file that others build on need not be complete by itself: it is read through them.
grep -rhoE '(_default:|!include)[[:space:]]+[^[:space:]]+' configs | awk '{ print $2 }' | sed 's|.*/||' | sort -u >"$tmp/bases"
find configs -name '*.yml' | sort | while read -r f; do
    if grep -qx "$(basename "$f")" "$tmp/bases"; then continue; fi
    "$qrun" show "$f" >"$tmp/out" 2>&1 || { echo "$f:"; head -n 3 "$tmp/out"; }
done | nothing "'qrun show' accepts every file of configs"

find $folders test main.c -name '*.[ch]' | xargs wc -l | awk '$2 != "total" && $1 > 1000 { print $2 ": " $1 " lines" }' |
    nothing 'no file above 1000 lines'
grep -rnE 'TODO|FIXME|XXX[^X]' $folders main.c test docs Makefile README.md --exclude-dir=node_modules --include='*.[ch]' --include='*.sh' --include='*.md' \
    --include='*.def' --include=Makefile 2>/dev/null | grep -v '^test/layering.sh:' | grep -vE '[A-Z]*XXXX' | nothing 'nothing is left for later'
echo "1..$(($(wc -l <"$tmp/count")))"
