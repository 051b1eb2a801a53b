"""An independent referee of the funnel: it imports nothing of the project.

Dependencies are simulated forward on plain sets: for each channel the set of input channels that
it depends on (the bits of an integer) and the set of rows on which it looks. All group numbers
are tried; compositions share the simulation of their common prefixes.
"""

from itertools import combinations, pairwise, product

START = (1, 1, 1)
GROUPED = ("GC", "PWG")
SPATIAL = ("STD", "GC", "DW")
ORDER = {
    "plain": ("repeats", "field", "growth", "subsequence", "depthwise", "mirror"),
    "bottleneck": ("repeats", "ends", "field", "growth", "palindrome", "depthwise"),
}


def find_repeat(word):
    """Some (start, length) with word[start:start+length] twice in a row, or None: O(n^3)."""
    for start in range(len(word)):
        for length in range(1, (len(word) - start) // 2 + 1):
            middle = start + length
            if word[start:middle] == word[middle : middle + length]:
                return start, length
    return None


def is_subsequence(part, whole):
    rest = iter(whole)
    return all(symbol in rest for symbol in part)


class Referee:
    """One pass of the funnel at C -> C channels, judged by trying everything."""

    def __init__(self, channels, stage, *, kernel=3, vocabulary, max_length, off=()):
        self.channels, self.stage, self.kernel = channels, stage, kernel
        self.vocabulary, self.max_length = tuple(vocabulary), max_length
        self.rules = [rule for rule in ORDER[stage] if rule not in off]
        self.target = (kernel, kernel, channels)
        self._paths = {}
        self._speaks = {}

    # ---- dependencies on plain sets ----------------------------------------------------------

    def widths(self, word):
        """Channels before, between and after the operators; None if no bottleneck stands."""
        if self.stage == "plain":
            return (self.channels,) * (len(word) + 1)
        resizing = [i for i, symbol in enumerate(word) if symbol != "DW"]
        if len(resizing) < 2:
            return None
        inner = self.channels // 4
        return tuple(
            inner if resizing[0] < i <= resizing[-1] else self.channels
            for i in range(len(word) + 1)
        )

    def group_numbers(self, symbol, c, f):
        if symbol == "DW":
            return [c] if c == f else []
        if symbol in GROUPED:
            return [g for g in range(2, min(c, f) + 1) if c % g == 0 and f % g == 0]
        return [1]

    def convolve(self, seen, g, f):
        """What each of f output channels depends on, given what each input depends on."""
        c = len(seen)
        outputs = []
        for group in range(g):
            union = 0
            for channel in range(group * (c // g), (group + 1) * (c // g)):
                union |= seen[channel]
            outputs += [union] * (f // g)
        return tuple(outputs)

    def shuffle(self, seen, g):
        """The channel (group, j) moves to (j, group)."""
        each = len(seen) // g
        if not 1 < g < len(seen):
            return seen
        return tuple(seen[group * each + j] for j in range(each) for group in range(g))

    def rows(self, word):
        """The rows that the composition looks at, as a set of offsets."""
        half = self.kernel // 2
        offsets = {0}
        for symbol in word:
            if symbol in SPATIAL:
                offsets = {o + tap for o in offsets for tap in range(-half, half + 1)}
        return offsets

    def paths(self, word, widths):
        """(dependencies, sizes after each operator) of every choice of group numbers.

        The size of a prefix is taken at the output that sees least, before the shuffle.
        """
        if not word:
            return {(tuple(1 << c for c in range(self.channels)), (START,))}
        key = (word, widths)
        if key not in self._paths:
            side = len(self.rows(word))
            found = set()
            for seen, sizes in self.paths(word[:-1], widths[:-1]):
                for g in self.group_numbers(word[-1], widths[-2], widths[-1]):
                    outputs = self.convolve(seen, g, widths[-1])
                    size = (side, side, min(dependencies.bit_count() for dependencies in outputs))
                    found.add((self.shuffle(outputs, g), (*sizes, size)))
            self._paths[key] = found
        return self._paths[key]

    def histories(self, word):
        """The sizes along every choice of group numbers; empty where nothing can stand."""
        widths = self.widths(word)
        return set() if widths is None else {sizes for _, sizes in self.paths(word, widths)}

    def follow(self, word, groups):
        """The final size for the given group numbers, each of which must be allowed."""
        widths = self.widths(word)
        seen = tuple(1 << c for c in range(self.channels))
        for symbol, g, (c, f) in zip(word, groups, pairwise(widths), strict=True):
            assert g in self.group_numbers(symbol, c, f)
            outputs = self.convolve(seen, g, f)
            seen = self.shuffle(outputs, g)
        side = len(self.rows(word))
        return (side, side, min(dependencies.bit_count() for dependencies in outputs))

    # ---- the rules, by trying everything -----------------------------------------------------

    def reaching(self, word):
        """The histories among which growth has to find one."""
        every = self.histories(word)
        return {h for h in every if h[-1] == self.target} if "field" in self.rules else every

    def grows(self, history):
        must = len(history) - (2 if self.stage == "bottleneck" else 1)
        return all(history[i] != history[i + 1] for i in range(must))

    def replacements(self, word):
        choices = [("GC", "DW") if symbol == "GC" else (symbol,) for symbol in word]
        return [other for other in product(*choices) if other != word]

    def in_space(self, word):
        return len(word) <= self.max_length and all(s in self.vocabulary for s in word)

    def first_spatial(self, word):
        return min((i for i, s in enumerate(word) if s in SPATIAL), default=len(word))

    def cost(self, word):
        """Fewest parameters over the group numbers that pass field and growth."""
        widths, best = self.widths(word), float("inf")
        numbers = [
            self.group_numbers(s, c, f) for s, (c, f) in zip(word, pairwise(widths), strict=True)
        ]
        for groups in product(*numbers):
            prefixes = range(1, len(word) + 1)
            sizes = (START, *(self.follow(word[:n], groups[:n]) for n in prefixes))
            if sizes[-1] != self.target or ("growth" in self.rules and not self.grows(sizes)):
                continue
            params = sum(
                c * f // g * (self.kernel**2 if s in SPATIAL else 1)
                for s, g, (c, f) in zip(word, groups, pairwise(widths), strict=True)
            )
            best = min(best, params)
        return best

    def prefers(self, one, other):
        """Whether the first of two mirror images is the one to show."""
        ours, theirs = self.first_spatial(one), self.first_spatial(other)
        if ours != theirs:
            return ours < theirs
        ours, theirs = self.cost(one), self.cost(other)
        if ours != theirs:
            return ours < theirs
        order = self.vocabulary.index
        return list(map(order, one)) < list(map(order, other))

    def removes(self, rule, word):
        passes = self.rules.index(rule)
        if rule == "repeats":
            return find_repeat(word) is not None
        if rule == "ends":
            return len(word) == 1 or "DW" in (word[0], word[-1])
        if rule == "field":
            return not any(h[-1] == self.target for h in self.histories(word))
        if rule == "growth":
            return not any(map(self.grows, self.reaching(word)))
        if rule == "subsequence":
            return any(
                h[-1] == self.target
                for length in range(1, len(word))
                for part in combinations(word, length)
                for h in self.histories(part)
            )
        if rule == "palindrome":
            return word != word[::-1]
        if rule == "depthwise":
            return any(
                self.in_space(other) and self.first_rule(other, passes) is None
                for other in self.replacements(word)
            )
        image = word[::-1]
        return (
            image != word and self.first_rule(image, passes) is None and self.prefers(image, word)
        )

    def first_rule(self, word, count=None):
        """The first of the first `count` rules that removes the composition, or None."""
        for rule in self.rules[:count]:
            if (rule, word) not in self._speaks:
                self._speaks[rule, word] = self.removes(rule, word)
            if self._speaks[rule, word]:
                return rule
        return None

    def everything(self):
        """(composition, rule that removes it or None) of the whole space."""
        for length in range(1, self.max_length + 1):
            for word in product(self.vocabulary, repeat=length):
                yield word, self.first_rule(word)

    # ---- the evidence ------------------------------------------------------------------------

    def verify(self, word, rule, reason, evidence):
        """Assert that the stated rule speaks first, and that its evidence is true and stated."""
        assert self.first_rule(word) == rule, (word, rule, self.first_rule(word))
        said = getattr(self, f"_verify_{rule}")(word, **evidence)
        for part in said:
            assert part in reason, (word, part, reason)

    def _verify_repeats(self, word, pattern, start, end):
        region = word[start - 1 : end]
        times, rest = divmod(len(region), len(pattern))
        assert times >= 2
        assert rest == 0
        assert region == pattern * times
        return "+".join(pattern), f"operators {start} to {end}"

    def _verify_ends(self, word, operator):
        assert operator in (1, len(word))
        assert len(word) == 1 or word[operator - 1] == "DW"
        return (word[operator - 1], "alone" if len(word) == 1 else "keeps the width")

    def _verify_field(self, word, largest, target):
        assert target == self.target
        finals = {h[-1] for h in self.histories(word)}
        assert target not in finals
        if largest is None:
            assert not finals
            return ()
        assert {final[:2] for final in finals} == {largest[:2]}
        assert max(final[2] for final in finals) == largest[2]
        bound = "exceeds" if largest[0] > self.kernel else "at most"
        return bound, str(largest), str(target)

    def _verify_growth(self, word, operators, field):
        every = self.reaching(word)
        if not every:
            assert "field" not in self.rules
            assert operators == ()
            return ()
        exempt = self.stage == "bottleneck"
        assert all(1 <= i <= len(word) - exempt for i in operators)
        for history in every:
            stalled = [i for i in operators if history[i - 1] == history[i]]
            assert stalled, (word, history, operators)
            if field is not None:
                assert field in {history[i] for i in stalled}
        names = [f"{word[i - 1]}, the {i}" for i in operators]
        return (*names, str(field) if field else "as it was")

    def _verify_subsequence(self, word, subsequence, groups):
        assert len(subsequence) < len(word)
        assert is_subsequence(subsequence, word)
        assert self.follow(subsequence, groups) == self.target
        return "+".join(subsequence), str(self.target)

    def _verify_palindrome(self, word, operators):
        first, last = operators
        assert first + last == len(word) + 1
        assert word[first - 1] != word[last - 1]
        return word[first - 1], word[last - 1]

    def _verify_depthwise(self, word, replacement):
        changed = [(a, b) for a, b in zip(word, replacement, strict=True) if a != b]
        assert changed
        assert set(changed) == {("GC", "DW")}
        assert self.in_space(replacement)
        assert self.first_rule(replacement, self.rules.index("depthwise")) is None
        return ("+".join(replacement),)

    def _verify_mirror(self, word, mirror):
        assert mirror == word[::-1] != word
        assert self.first_rule(mirror, self.rules.index("mirror")) is None
        assert self.prefers(mirror, word)
        return (f"mirror image of {'+'.join(mirror)}",)
