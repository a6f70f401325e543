#!/bin/sh
# experiments/f8net_chain.sh NET -- F8Net from the float net to integers on another runtime: float -> fixed point -> test ->
# int_infer -> int_op_only -> ONNX. Start it again after an interruption: finished trainings are not run again, a broken one
# continues; tests are repeated.
set -eu

usage() {
    cat <<'END'
Usage: f8net_chain.sh NET [OPTION]... [KEY=VALUE]...
F8Net's stages for NET:
  res18 mbv1 mbv2             trained in float, then in 8-bit fixed point, on ImageNet
  res18_ptcv res50_ptcv       finetuned from pytorchcv's weights (-i FILE, or found by name)
  res50_nvidia                finetuned from NVIDIA's checkpoint (-i FILE)
  res20_cifar                 ResNet-20 on CIFAR-10, finetuned from a published float net (-i FILE)
  tiny tiny_finetune          configs/tiny/f8_*.yml: a small net on drawn images, for a first try

  -c N      images that the ONNX file is compared on (default: 100)
  -d DIR    data set folder or archive (dataset_dir)
  -e N      epochs of each training
  -i FILE   the weights to begin with, instead of training the float stage
  -o DIR    where the run folders go (default: results)
  -q FILE   the program (default: ./qrun)
  -s STAGES stages to run (default: "float fix test int_infer int_op_only onnx"; there is integize too)
  -n        print the commands, run nothing
  -h        this text
KEY=VALUE goes to every stage, for instance threads=2.

The last stage runs the ONNX file on ONNX Runtime (test/onnx: node and npm ci): every logit must be the one of int_op_only. Without
the runtime it is skipped, and says so.
END
}

here=$(dirname "$0")
. "$here/chain.sh"

net_first "$@"
shift
stages='float fix test int_infer int_op_only onnx' count=100 title=
options c:d:e:i:o:q:s:nh "$@"
shift "$used"
case $count in '' | *[!0-9]* | 0) fail "-c $count: expected a number of images, at least 1" ;; esac
[ -z "$data" ] || set -- "dataset_dir=$data" "$@"

# $float: configuration of the float training, empty where there is none; $fix: of the training in fixed point, which reads the
# weights through $key; $test: its tests begin with this, empty: by keys behind $fix.
configs=$here/../configs/f8net float='' key=fp_pretrained_file
case $net in
res18 | mbv1 | mbv2)
    float=$configs/${net}_floating_train.yml fix=$configs/${net}_fix_quant_train.yml test=$configs/${net}_fix_quant_test
    ;;
res18_ptcv | res50_ptcv)
    fix=$configs/${net%_ptcv}_fix_quant_ptcv_pretrained_train.yml test=${fix%train.yml}test key=ptcv_pretrained_file
    ;;
res50_nvidia)
    fix=$configs/res50_fix_quant_nvidia_pretrained_train.yml test=${fix%train.yml}test key=nvidia_pretrained_file
    ;;
res20_cifar) fix=$configs/res20_cifar_tiny_finetune.yml test='' ;;
tiny) configs=$here/../configs/tiny float=$configs/f8_float.yml fix=$configs/f8_fix.yml test='' ;;
tiny_finetune) configs=$here/../configs/tiny float=$configs/f8_float.yml fix=$configs/f8_finetune.yml test='' ;;
*) fail "unknown net '$net'" ;;
esac
run=$out/${net}_f8net
float_run=$out/${net}_f8net_float
[ -z "$init" ] || float=''
from=${float:+$float_run} from=${init:-$from}

# STAGE FOLDER KEY=VALUE... -- a test of what was trained, below FOLDER/STAGE.
tested() {
    name=$1 folder=$2
    shift 2
    needs "$name" "$run/checkpoints"
    set -- "log_dir=$folder" "pretrained_file=$run" "$@"
    if [ -n "$test" ]; then
        case $name in
        test) config=$test.yml ;;
        int_infer) config=${test}_int_model.yml ;;
        *) config=${test}_$name.yml ;;
        esac
    else
        config=$fix
        set -- test_only=true quant_bias=true "$@"
    fi
    case $name in test) ;; *) set -- "$name=true" int_compare=true "$@" ;; esac
    stage "$net $name${title:+ $title}" "$config" "$@"
}

# The file of a test of its own, on few images, before another program.
onnx() {
    judge=$here/../test/onnx/onnx-run.mjs model=$run/onnx/int_op_only/onnx_files/int_op_only_model.onnx dump=$run/onnx/dump
    title="on $count images"
    tested int_op_only "$run/onnx" "$@" "limit_val=$count" "dump_dir=$dump"
    set -- "$judge" "$model" -i "$dump/input.npy" --expect "$dump/output.npy"
    if [ -n "$dry" ]; then
        echo "node $*"
        return
    fi
    status=77 said='node is not installed'
    if command -v node >/dev/null 2>&1; then
        status=0
        said=$(node "$@" 2>&1) || status=$?
    fi
    said=$(printf '%s\n' "$said" | tail -n 1)
    case $status in
    77) echo "$net onnx: skipped: $said" ;;
    0) echo "$net onnx: ${said#ok *: } ($model)" ;;
    *)
        echo "$net onnx: $said ($model)" >&2
        exit 5
        ;;
    esac
}

for s in $stages; do
    case $s in
    float)
        [ -z "$float" ] || stage "$net float" "$float" "log_dir=$float_run" ${epochs:+"num_epochs=$epochs"} "$@"
        ;;
    fix)
        [ -z "$from" ] || needs "$s" "$from"
        stage "$net fix${from:+, from $from}" "$fix" "log_dir=$run" ${from:+"$key=$from"} ${epochs:+"num_epochs=$epochs"} "$@"
        ;;
    test | int_infer | integize | int_op_only) tested "$s" "$run" "$@" ;;
    onnx) onnx "$@" ;;
    *) fail "unknown stage '$s'" ;;
    esac
done
