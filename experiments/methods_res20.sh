#!/bin/sh
# experiments/methods_res20.sh -- ResNet-20 on CIFAR-10 by four ways from the same published float weights: float, APoT, FAT,
# 1-bit weights with hysteresis; and a table of all. Start it again after an interruption: finished stages are not run again,
# the broken one continues.
set -eu

usage() {
    cat <<'END_USAGE'
Usage: methods_res20.sh -i FILE [OPTION]... [KEY=VALUE]...
Short trainings of ResNet-20 on CIFAR-10, and a table of what came out. Stages:
  float                 2 epochs from FILE; what all others start from
  apot4 apot3           APoT, 2 epochs each: 4 bit from float, 3 bit from 4
  fat5 fat4 fat3        FAT, the same recipe: 5 bit from float, then each from the run one bit wider (use_pretrain)
  hysteresis            1-bit weights, 2-bit activations, 5 epochs, gradients of an update not longer than 1 (grad_clip)
  hysteresis_pact       the same with trained clip levels, from 2

  -d DIR    data set folder or archive (dataset_dir)
  -i FILE   float weights to begin with
  -o DIR    where the run folders go (default: results)
  -q FILE   the program (default: ./qrun)
  -r FILE   where the table goes (default: methods_res20.md in the folder of -o)
  -s STAGES stages to run (default: all); the table has those that are there
  -n        print the commands, run nothing
  -h        this text
KEY=VALUE goes to every stage, for instance threads=2 or limit_train=512.
END_USAGE
}

here=$(dirname "$0")
. "$here/chain.sh"
all='float apot4 apot3 fat5 fat4 fat3 hysteresis hysteresis_pact'
stages=$all table=
options d:i:o:q:r:s:nh "$@"
shift "$used"
: "${table:=$out/methods_res20.md}"
[ -n "$init" ] || fail "-i FILE is missing: float weights of ResNet-20"
[ -z "$data" ] || set -- "dataset_dir=$data" "$@"
configs=$here/../configs

# STAGE -- its run folder; of FAT's, use_pretrain takes the one before by its name.
folder() {
    case $1 in
    apot? | fat?) echo "$out/methods_${1%?}_${1#"${1%?}"}bit" ;;
    *) echo "$out/methods_$1" ;;
    esac
}

# STAGE -- the stage it starts from; none: the file of -i.
before() {
    case $1 in
    float) ;;
    apot3) echo apot4 ;;
    fat4) echo fat5 ;;
    fat3) echo fat4 ;;
    *) echo float ;;
    esac
}

# CONFIG KEY=VALUE... -- what float, APoT and FAT have in common (FAT's own recipe has other values).
same_recipe() {
    config=$1
    shift
    stage "res20 $s" "$configs/$config" "log_dir=$(folder "$s")" num_epochs=2 batch_size=128 val_batch_size=100 lr=0.01 \
        'multistep_lr_milestones=[1]' weight_decay=1e-4 "$@"
}

for s in $stages; do
    case " $all " in *" $s "*) ;; *) fail "unknown stage '$s'" ;; esac
    from=$(before "$s")
    [ -z "$from" ] || from=$(folder "$from")
    needs "$s" "${from:=$init}"
    case $s in
    float) same_recipe apot/res20_32bit.yml "pretrained_file=$from" "$@" ;;
    apot?) same_recipe "apot/res20_${s#apot}bit.yml" "pretrained_file=$from" "$@" ;;
    fat5) same_recipe fat/res20_5bit.yml "pretrained_file=$from" "$@" ;;
    fat?) same_recipe "fat/res20_${s#fat}bit.yml" use_pretrain=true "$@" ;;
    hysteresis*)
        # Signs in place of trained weights make gradients that, at lr 0.1, carry the latent copies so far from 0 within the
        # first hundred updates that few weights change their sign ever after: 61 to 67 % without grad_clip.
        variant=
        [ "$s" = hysteresis ] || variant='quant_variant=pact act_clip_init=2'
        stage "res20 $s" "$configs/hysteresis/res20_w1a2.yml" "log_dir=$(folder "$s")" "pretrained_file=$from" num_epochs=5 \
            lr=0.1 'multistep_lr_milestones=[2,4]' grad_clip=1 $variant "$@"
        ;;
    esac
done
[ -z "$dry" ] || exit 0

# FOLDER NAME -- a result of a run, as `qrun compare` has it.
result_of() {
    "$qrun" compare --json "$1" "$1" | sed -n "/^ *\"$2\": /{s/[^:]*: *//;s/,//p;q;}"
}

# FOLDER -- top-1 after each epoch, through slashes.
top1_by_epoch() {
    sed -n 's/.*"split":"val".*"top1":\([0-9.]*\).*/\1/p' "$1/metrics.jsonl" | awk '{ printf "%s%.2f", (NR > 1 ? " / " : ""), $1 }'
}

# FOLDER -- flips in per cent of all binary weights, one row of a table for each epoch: those of the layers, by their sizes.
flips_by_epoch() {
    {
        "$qrun" inspect "$1" | sed -n 's/^\([^ ]*\)\.weight  *F32  *\[\([0-9, ]*\)\].*/size \1 \2/p' | tr -d ,
        sed -n 's/.*"epoch":\([0-9]*\),"split":"params",\(.*\)}$/epoch \1 \2/p' "$1/metrics.jsonl" | tr ',' ' '
    } | awk '
        $1 == "size" { size[$2] = 1; for (i = 3; i <= NF; i++) size[$2] *= $i }
        $1 == "epoch" {
            flips = weights = 0
            for (i = 3; i <= NF; i++)
                if (split($i, part, /["\/:]+/) == 4 && part[2] == "flips") {
                    flips += size[part[3]] * part[4]
                    weights += size[part[3]]
                }
            if (weights == 0) next
            if (first == 0) first = flips / weights
            printf "| %d | %.2f | %.2f |\n", $2, flips / weights, flips / weights / first
        }'
}

{
    cat <<END_HEAD
# methods_res20

\`experiments/methods_res20.sh\`: ResNet-20 on CIFAR-10 from published float weights. Float, APoT and FAT with one recipe: 2 epochs, batch
128, lr 0.01, then 0.001, decay 1e-4. Hysteresis: 5 epochs, lr 0.1, 0.1, 0.01, 0.01, 0.001, no decay, gradients of an update not longer
than 1. One seed. Top-1 in per cent; images per second of the last epoch; wall time with evaluation.

| run | starts from | top-1 after each epoch | best top-1 | images/s | wall time |
|---|---|---|---|---|---|
END_HEAD
    for s in $all; do
        run=$(folder "$s")
        [ -f "$run/run.json" ] || continue
        from=$(before "$s")
        printf '| %s | %s | %s | %.2f | %.0f | %.0f s |\n' "$s" "${from:-published weights}" "$(top1_by_epoch "$run")" \
            "$(result_of "$run" best_top1)" "$(result_of "$run" images_per_second)" "$(result_of "$run" seconds)"
    done
    for s in hysteresis hysteresis_pact; do
        run=$(folder "$s")
        [ -f "$run/metrics.jsonl" ] || continue
        printf '\n%s: changes of sign of the binary weights, for each update of an epoch.\n\n' "$s"
        printf '| epoch | per cent of the weights | of the first epoch |\n|---|---|---|\n'
        flips_by_epoch "$run"
    done
} >"$table.tmp"
mv "$table.tmp" "$table"
echo "table: $table"
