#!/bin/sh
# experiments/compare/compare.sh -- every method of the program on one net, with one short recipe, at 4, 3 and 2 bits, 1-bit
# weights with 2-bit maps: a table, a picture, a page. Start it again after an interruption: finished runs are not run again.
set -eu

usage() {
    cat <<'END'
Usage: compare.sh [OPTION]... [KEY=VALUE]...

  -d DIR    data set folder or archive (dataset_dir)
  -e N      epochs instead of 2
  -i FILE   float weights all runs begin with
  -o DIR    where the run folders go (default: results)
  -q FILE   the program (default: ./qrun)
  -s NAMES  methods to run, names of files here (default: all)
  -n        print the commands, run nothing
  -h        this text
KEY=VALUE goes to every run. The table goes to standard output; DIR/compare/ gets table.md, and without F8Net accuracy.svg and
page.html.
END
}

here=$(dirname "$0")
. "$here/../chain.sh"

# What each is tried at: bits of weights, and of maps.
wide='4:4 3:3 2:2' binary='1:2'
widths() {
    case $1 in
    float) echo 32:32 ;;
    hysteresis | xnor | xnor_gamma | dorefa_bin) echo $binary ;;
    fatnn) echo 2:2 ;; # it has codes for up to four levels
    *) echo $wide ;;
    esac
}

# METHOD BITS -- what depends on the bits of maps. Clip levels of maps (DoReFa's stand) start the same for all that have them: fewer
# levels, less range; two epochs are too short to bring them there from one value for all. Clip levels of weights, in
# standard deviations: 2 bits have no level but 0 and the clip level, and from the methods' own 3 all weights below 1.5 would
# become 0. DoReFa's weights, which PACT has too: 2 bits have levels at the largest weight and a third of it, about 6 and 2 standard
# deviations; normalised, tanh brings them to 1 and a third.
by_width() {
    case $2 in 4) start=3 ;; 3) start=2 ;; 2) start=1.5 ;; *) return ;; esac
    case $1 in
    dorefa | dorefa_bin) echo "fm_boundary=$start" ;;
    apot | fat | fat_uniform | adabits | pact | lsq | xnor | xnor_gamma | hysteresis) echo "act_clip_init=$start" ;;
    esac
    case $1:$2 in
    apot:2 | fat:2 | fat_uniform:2) echo wt_clip_init=1.3 ;;
    dorefa:2 | pact:2) echo wt_adaptive=var-mean ;;
    esac
}

names=
for f in "$here"/*.yml; do
    name=$(basename "$f" .yml)
    [ "$name" = recipe ] || [ "$name" = float ] || names="$names $name"
done
stages="float$names"
options d:e:i:o:q:s:nh "$@"
shift "$used"
[ -n "$init" ] || fail "-i: expected a file of float weights"
needs "every run" "$init"

runs= quantized=
for s in $stages; do
    [ -f "$here/$s.yml" ] || fail "unknown method '$s'"
    for w in $(widths "$s"); do
        wt=${w%:*} fm=${w#*:}
        run=$out/compare/${s}_w${wt}a$fm
        stage "$s, $wt-bit weights, $fm-bit maps" "$here/$s.yml" "log_dir=$run" "wt_bit=$wt" "fm_bit=$fm" \
            $(by_width "$s" "$fm") "fp_pretrained_file=$init" ${data:+"dataset_dir=$data"} ${epochs:+"num_epochs=$epochs"} "$@" >&2
        runs="$runs $run"
        case $s in
        float | f8net) ;; # 32 bits; 10 % at 3 bits would press all others together
        *) quantized="$quantized $run" ;;
        esac
    done
done
[ -z "$dry" ] || exit 0
to=$out/compare
# shellcheck disable=SC2086 # names of runs have no blanks
set -- $quantized
if [ $# -gt 2 ]; then
    "$qrun" compare $quantized by=wt_bit "picture=$to/accuracy.svg" "html=$to/page.html" >/dev/null
    # shellcheck disable=SC2086
    "$qrun" compare $runs by=wt_bit | tee "$to/table.md"
fi
