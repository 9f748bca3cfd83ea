"""Distil a small student, see what it learned, and ask it something: a minute on a laptop.

What is given on the command line are further settings: `python train.py steps=100`.
"""

import sys

import opd

if __name__ == "__main__":
    run = opd.train(opd.compose("quickstart", "steps=20", "eval.size=200", *sys.argv[1:]))

    print(run.metrics.frame()[["step", "kl/sampled", "rollout/reward"]].iloc[1::5].to_string(index=False))
    print(run.evaluations.frame()[["name", "eval/accuracy", "eval/kl"]].to_string(index=False))
    worst = min(run.rollouts(run.steps[-1]), key=lambda row: sum(row["teacher_logprobs"]))
    print(f"the teacher liked least: {worst['prompt']}{worst['completion']}")
    for answer in opd.sample(run, ["1+2+3+4:", "9-4+7-5:"]):
        print(f"{answer['prompt']} {answer['completion']}")
    print(f"a Hugging Face checkpoint: {opd.export(run, dtype='float32', quiet=True)['path']}")
