"""One prompt, answered by the base model and by every adapter of the server, all at the same time.

    python example.py "English: good day, my friend.\nPirate:"
"""

import concurrent.futures
import sys

from lorad import LoradClient, LoradError


def main() -> int:
    prompt = sys.argv[1].replace("\\n", "\n") if len(sys.argv) > 1 else "Good day, my friend."
    with LoradClient() as client:
        try:
            model = client.model()
            adapters = [""] + [adapter.name for adapter in client.list_adapters()]
        except LoradError as error:
            print(f"the server does not answer: {error}", file=sys.stderr)
            return 1
        print(f"{model.name} on {model.backend}, {len(adapters) - 1} adapters")

        def ask(adapter: str):
            return client.generate(prompt, adapter, max_tokens=32, temperature=0, stop="\n")

        with concurrent.futures.ThreadPoolExecutor(max_workers=len(adapters)) as pool:
            for adapter, answer in zip(adapters, pool.map(ask, adapters)):
                usage = answer.finish.usage
                print(f"{adapter or 'base':24} {answer.text!r} ({usage.completion_tokens} tokens)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
