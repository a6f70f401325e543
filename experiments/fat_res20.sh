#!/bin/sh
# experiments/fat_res20.sh -- ResNet-20 on CIFAR-10 with FAT, 32 -> 5 -> 4 -> 3 bits: each stage starts from the best
# checkpoint of the next wider one, 5 bits from the float net. Start it again after an interruption: finished stages are
# not run again, the broken one continues.
set -eu

usage() {
    cat <<'END'
Usage: fat_res20.sh [OPTION]... [KEY=VALUE]...

  -d DIR    data set folder or archive (dataset_dir)
  -i FILE   float weights to begin with, instead of training the 32-bit stage
  -o DIR    where the run folders go (default: results)
  -q FILE   the program (default: ./qrun)
  -s BITS   stages to run (default: "32 5 4 3")
  -n        print the commands, run nothing
  -h        this text
KEY=VALUE goes to every stage, for instance num_epochs=2 lr=0.01 'multistep_lr_milestones=[1]'.
END
}

data='' init='' out=results qrun=./qrun stages='32 5 4 3' dry=
while getopts d:i:o:q:s:nh opt; do
    case $opt in
    d) data=$OPTARG ;;
    i) init=$OPTARG ;;
    o) out=$OPTARG ;;
    q) qrun=$OPTARG ;;
    s) stages=$OPTARG ;;
    n) dry=1 ;;
    h)
        usage
        exit 0
        ;;
    *)
        echo "Try 'fat_res20.sh -h' for more information." >&2
        exit 2
        ;;
    esac
done
shift $((OPTIND - 1))

configs=$(dirname "$0")/../configs/fat
[ -z "$data" ] || set -- "dataset_dir=$data" "$@"
for bits in $stages; do
    config=$configs/res20_${bits}bit.yml run=$out/fat_res20_${bits}bit from=
    [ -f "$config" ] || { echo "fat_res20.sh: there is no $config" >&2; exit 2; }
    case $bits in
    32) [ -z "$init" ] || continue ;;
    5) from=${init:-$out/fat_res20_32bit} ;;
    *) from=$out/fat_res20_$((bits + 1))bit ;;
    esac
    if [ -n "$dry" ]; then
        echo "$qrun $config log_dir=$run${from:+ pretrained_file=$from}${*:+ $*}"
        continue
    fi
    if [ -n "$from" ] && [ ! -e "$from" ]; then
        echo "fat_res20.sh: $bits bits start from $from, which is not there; run that stage first" >&2
        exit 3
    fi
    echo "== $bits bit${from:+, from $from}" >&2
    result=$("$qrun" "$config" "log_dir=$run" ${from:+"pretrained_file=$from"} "$@")
    printf 'res20 %s bit: %s\n' "$bits" "$(printf '%s\n' "$result" | tail -n 1)"
done
