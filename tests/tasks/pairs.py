# ruff: noqa: E501 - a table, with a line for what is right of an answer and one for what is wrong
r"""Answers, right and wrong ones, in the formats of GSM8K, MATH and IFEval: what they are graded as, by hand.

Each line is a gold answer (or a rule), what is right for it, and what is wrong.
"""

from __future__ import annotations

from typing import Any

Lines = list[tuple[str, list[str], list[str]]]

GSM8K: Lines = [
    ("42", ["42", "#### 42", "####42", "The answer is 42.", "the answer is: 42", "Answer: 42", "\\boxed{42}",
            "$\\boxed{42}$.", "So 40 + 2 = 42", "It takes 42 days.", "The answer is **42**.", "#### 42\n", "x = 42",
            "\\boxed{42\\text{ apples}}", "\\boxed{x = 42}", "The answer is $42$.", "The answer is \\(42\\).",
            "#### 42 apples", "\\fbox{42}", "\\boxed 42", "42!", "The answer is 42!", "4\u00d710 + 2 = 42", "42.0", "42.",
            "#### 42.00", "\uff14\uff12"],
           ["41", "-42", "#### -42", "420", "4.2", "42.5", "#### 42.5", "\\boxed{42 or 43}", "\\boxed{4,2}", "#### 42 or 43",
            "The answer is 42 or 41", "\\boxed{42}\\boxed{43}", "42/7", "42\u00b2", "\\boxed{42^2}", "#### 42-43", "42:30",
            "between 42 and 50", "\\boxed{}", "\\boxed{42", "no idea", "", "#### 42, 43", "42e2", "0.42", "#### 142",
            "The answer is 24. 42 is wrong, so it is 24", "1/42", "42/1/2020"]),
    ("-5", ["-5", "#### -5", "#### -$5", "#### $-5", "#### \u22125", "The answer is \u22125.", "The answer is -$5.",
            "\\boxed{-5}", "\\boxed{\u2212 5}".replace(" ", ""), "from 9 to -5", "it fell to -5\u00b0", "(-5)", "x=-5", "#### \u20135",
            "\\boxed{-\\$5}", "a loss of -5 dollars", "#### -5.0"],
           ["5", "#### 5", "#### $5", "9-5", "7 - 5", "The answer is 5.", "\\boxed{5}", "-5.5", "-50", "5-", "#### - 6", "--5",
            "\\boxed{5-}", "pages 1-5"]),
    ("5", ["5", "9 - 4 = 5", "3-5 makes 5", "#### 5", "#### +5", "$5", "5 dollars", "5%", "\u20ac5", "5 \u20ac", "#### 5%"],
          ["-5", "#### -$5", "The answer is -$5.", "#### \u22125", "\\boxed{-5}", "5 1/2", "5\u00bd", "#### 5 1/2", "5/2", "5,5"]),
    ("1200", ["1200", "1,200", "$1,200", "#### $1,200.00", "1{,}200", "\\boxed{1{,}200}", "\\boxed{1\\,200}", "1 200",
              "1\u202f200", "1\u00a0200", "#### 1,200 dollars", "1.2e3", "1.2 x 10^3", "\\boxed{1.2 \\times 10^{3}}",
              "12*100=1200", "The answer is \\$1,200."],
             ["1.200", "1,20", "12,00", "#### 1,2", "200", "1,200,000", "1 2 0 0", "1200.5", "12000", "1.2e4", "#### 1,200-1,300"]),
    ("1234567", ["1,234,567", "1234567", "$1,234,567", "1\u2009234\u2009567", "\\boxed{1{,}234{,}567}"],
                ["1,234", "1,23,4567", "234567", "1.234.567", "1,234,567.8"]),
    ("0.5", ["0.5", ".5", "1/2", "\\boxed{\\frac{1}{2}}", "\\boxed{\\dfrac{1}{2}}", "\u00bd", "#### 1/2", "\\boxed{\\frac12}", "0.50", "5e-1",
             "The answer is $\\frac{1}{2}$"],
            ["5", "0.05", "2", "-0.5", "1/3", "\\boxed{\\frac{2}{1}}", "0,5", "1/2/3", "#### 0.5.1"]),
    ("3/2", ["1 1/2", "1.5", "3/2", "1\u00bd", "\\boxed{1\\frac{1}{2}}", "\\boxed{\\frac{3}{2}}", "#### 1 1/2 cups"],
            ["1", "1/2", "11/2", "2/3", "-3/2", "1 1/3", "\\boxed{1}\\frac{1}{2}"]),
]  # fmt: skip

MATH: Lines = [
    ("5", ["$\\boxed{5}$", "We get $\\boxed {5}$ of 7.", "\\fbox{5}", "\\boxed 5", "\\boxed5", "\\boxed{5.}", "\\boxed{5.0}", "\\boxed{\\$5}",
           "\\boxed{5\\%}", "\\boxed{5^\\circ}", "\\boxed{5\\text{ cm}}", "\\boxed{5~\\mathrm{cm}^3}", "\\boxed{5 \\text{ apples}}",
           "\\boxed{4}\\boxed{5}", "\\boxed{\\frac{10}{2}}", "\\boxed{\\sqrt{25}}", "\\boxed{ 5 }", "\\boxed{5\\,}", "\\boxed{x=5}",
           "\\boxed{\\text{5}}"],
          ["\\boxed{6}", "\\boxed{-5}", "\\boxed{5}\\boxed{6}", "\\boxed{55}", "\\boxed{5.1}", "\\boxed{5", "\\boxed{}", "", "\\boxed{5x}",
           "\\boxed{\\{5, 6\\}}", "\\boxed{(5,6)}", "\\boxed{\\sqrt{5}}", "\\boxed{5!}", "\\boxed{5^2}", "\\boxed{5/6}"]),
    ("50\\%", ["\\boxed{50\\%}", "\\boxed{50}", "\\boxed{50%}", "\\boxed{50 \\%}"], ["\\boxed{0.05}", "\\boxed{5\\%}", "\\boxed{49\\%}", "\\boxed{-50\\%}"]),
    ("90^\\circ", ["\\boxed{90^\\circ}", "\\boxed{90^{\\circ}}", "\\boxed{90}", "\\boxed{90\u00b0}", "\\boxed{90\\degree}"],
                  ["\\boxed{9}", "\\boxed{90^2}", "\\boxed{91^\\circ}", "\\boxed{-90^\\circ}"]),
    ("10000", ["\\boxed{10,000}", "\\boxed{10{,}000}", "\\boxed{10\\,000}", "\\boxed{10\\!000}", "\\boxed{10^4}", "\\boxed{1 \\times 10^4}", "\\boxed{10 000}"],
              ["\\boxed{10,00}", "\\boxed{10.000}", "\\boxed{1000}", "\\boxed{10,0000}", "\\boxed{10^5}"]),
    ("\\frac{5}{4}", ["\\boxed{5/4}", "\\boxed{1 1/4}", "\\boxed{1\\frac{1}{4}}", "\\boxed{1.25}", "\\boxed{\\dfrac54}", "\\boxed{\\tfrac{5}{4}}", "\\boxed{\\frac{10}{8}}"],
                     ["\\boxed{4/5}", "\\boxed{1/4}", "\\boxed{11/4}", "\\boxed{-\\frac{5}{4}}", "\\boxed{1.2}", "\\boxed{1\\frac{1}{5}}"]),
    ("\\frac{1}{3}", ["\\boxed{1/3}", "\\boxed{\\frac13}", "\\boxed{0.333333}", "\\boxed{\\frac{2}{6}}"], ["\\boxed{0.33}", "\\boxed{0.3}", "\\boxed{3}", "\\boxed{0.333334}"]),
    ("0.0000001", ["\\boxed{10^{-7}}", "\\boxed{0.0000001}", "\\boxed{1\\times10^{-7}}"], ["\\boxed{0.0000002}", "\\boxed{0}", "\\boxed{10^{-8}}", "\\boxed{-10^{-7}}"]),
    ("1.6\\times10^{-19}", ["\\boxed{1.6\\times10^{-19}}", "\\boxed{1.6 \\cdot 10^{-19}}", "\\boxed{16\\times 10^{-20}}"],
                           ["\\boxed{1.7\\times10^{-19}}", "\\boxed{1.6\\times10^{-18}}", "\\boxed{0}"]),
    ("\\frac{1}{2004!}", ["\\boxed{\\frac{1}{2004!}}", "\\boxed{1/2004!}"], ["\\boxed{\\frac{1}{2006!}}", "\\boxed{0}", "\\boxed{\\frac{1}{2004}}"]),
    ("\\text{Monday}", ["\\boxed{\\text{Monday}}", "\\boxed{Monday}"], ["\\boxed{\\text{Sunday}}", "\\boxed{}"]),
    ("2\\sqrt{3}", ["\\boxed{2\\sqrt{3}}", "\\boxed{2\\sqrt3}", "\\boxed{\\sqrt{12}}"], ["\\boxed{\\sqrt{3}}", "\\boxed{3\\sqrt{2}}", "\\boxed{2}"]),
    ("x^2+2x+1", ["\\boxed{x^2+2x+1}", "\\boxed{(x+1)^2}", "\\boxed{1+2x+x^2}"], ["\\boxed{x^2+1}", "\\boxed{x^2+2x-1}"]),
    ("5\\text{ cm}", ["\\boxed{5}", "\\boxed{5 \\text{ cm}}", "\\boxed{5\\mathrm{cm}}", "\\boxed{5\\,\\text{cm}}"],
                     ["\\boxed{5\\text{ m}}", "\\boxed{6\\text{ cm}}", "\\boxed{5\\text{ cm}^2}"]),
    ("-\\frac{1}{2}", ["\\boxed{-\\frac{1}{2}}", "\\boxed{\u22120.5}", "\\boxed{\\frac{-1}{2}}", "\\boxed{-1/2}"], ["\\boxed{\\frac{1}{2}}", "\\boxed{0.5}", "\\boxed{-2}"]),
    ("(3,4)", ["\\boxed{(3,4)}", "\\boxed{(3, 4)}"], ["\\boxed{(4,3)}", "\\boxed{(3,5)}", "\\boxed{34}", "\\boxed{3}"]),
]  # fmt: skip

RULES: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    ("sentences", {"how": "exactly", "count": 2},
     ['He said "Go." Then he left.', "(It works.) Yes.", "Dr. Smith went home. He slept.", "One. Two.", "One! Two?", "One\nTwo",
      "J. Smith came. He saw.", "Use tools, e.g. Python. Then stop.", "He works at Acme Inc. She does not.", "It cost 3.5 euros. Good.",
      "So did I. Then we left.", "Wait... what? Yes.", "Mr. and Mrs. Doe came. They ate.", "\u201cGo.\u201d He left.", "It is *done.* Good."],
     ["One.", "One. Two. Three.", "Dr. Smith went home.", "One sentence, e.g. This one.", '"Stop!" he said.', "A. B. C.", "J. R. R. Tolkien wrote."]),
    ("json", {}, ['{"a": 1}', "[1, 2]", '```json\n{"a": 1}\n```', '```JSON\n{"a": 1}\n```', "```\n[1]\n```", '``` Json\n[]\n```'],
     ['{"a": NaN}', '{"a": 1', "1", '"a"', 'Here: {"a": 1}', "```python\n[1]\n```", '{"a": 1} {"b": 2}', "[Infinity]"]),
    ("starts", {"phrase": "Short answer"}, ["Short answer: no.", "short answer, yes", "SHORT ANSWER", "Short answer's best"],
     ["Short answers are good.", "A short answer: no", '"Short answer": no', "Short", "Short  answer"]),
    ("ends", {"phrase": "Over to you."}, ["Fine. Over to you.", "over to you.", "OVER TO YOU."], ["Over to you. Bye", "Over to you", "Hoover to you."]),
    ("quoted", {}, ['"all of it"', '"He said "go" to me."', "\u201call of it\u201d", '"two\n\nparagraphs"'],
     ['"one" and "two"', "none", '"', '""', '"open', "'single'", '"a", "b"']),
    ("commas", {}, ["no comma here", "1 000"], ["a, b", "\u4f60\uff0c\u597d", "1,000"]),
    ("exclamation", {}, ["quiet."], ["loud!", "\u597d\uff01"]),
    ("include", {"word": "time"}, ["in time", "Time's up", "_time_", "time-out"], ["times", "sometimes", "timer", "tim e"]),
    ("exclude", {"word": "very"}, ["every day", "delivery"], ["very good", "a VERY good", "very-good"]),
    ("bullets", {"how": "exactly", "count": 2}, ["- a\n- b", "* a\n* b", "intro\n- a\n- b\nend"], ["- a", "-a\n-b", "- a\n- b\n- c", "1. a\n2. b"]),
    ("paragraphs", {"count": 2}, ["a\n\nb", "a\nb\n\nc", "a\n \nb"], ["a\nb", "a", "a\n\nb\n\nc"]),
    ("digits", {}, ["five", "a"], ["5", "a1", "\u0665"]),
    ("lower", {}, ["all small 1!", "\u00fcber"], ["All small", "\u00dcber"]),
    ("upper", {}, ["ALL BIG 1!", "\u00dcBER"], ["ALL bIG", "a"]),
    ("title", {}, ["<<a title>>\ntext"], ["<a title>", "<<>>", "<< >>", "text"]),
    ("marked", {"count": 2}, ["*a* and *b*", "**a** and *b c*"], ["*a*", "2*3*4*5", "* a\n* b"]),
    ("postscript", {}, ["text\nP.S. more", "text\np.s. more"], ["P.S. more\ntext", "text PS more", "text"]),
    ("words", {"how": "at least", "count": 3}, ["one two three", "it's well-known, really", "a b c d"], ["one two", "one-two", "..."]),
    ("repeat", {"word": "you", "count": 2}, ["you and you", "You, you're"], ["you", "your yours", "youyou"]),
]  # fmt: skip
