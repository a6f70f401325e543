"""check.py FILE... -- the ONNX checker with full_check (types and shapes of every value) on each file; a line for
each that fails. Exit status 0 all pass, 1 some fail, 77 python3-onnx is not installed."""
import sys

try:
    import onnx
except ImportError:
    sys.exit(77)

failed = 0
for path in sys.argv[1:]:
    try:
        onnx.checker.check_model(onnx.load(path), full_check=True)
    except Exception as e:  # whatever it raises: the file is not good
        failed = 1
        print(f"{path}: {e}")
sys.exit(failed)
