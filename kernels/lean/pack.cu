// Weights in the order in which lean_forward reads them, in one launch; a thread writes one 32-bit word.
//
// Operand b of the tensor core: lane l = 4 n + k holds, of tile t and word row r, inputs
// (4 r + k) PER_WORD.. of column n. Sixteen bytes of a lane are (t, r) = 00, 01, 10, 11 of two
// neighbouring tiles; which output a column is, see forward.cu. Absent inputs and outputs are zeros.
#include "element.h"

constexpr int PER_WORD = 4 / ELEMENT_BYTES;

enum Ways { GROUPED, STENCIL, DIAGONAL };

// A matrix of outputs x inputs in groups: entry (o, i) of group g lies at g group + o output + i input.
struct Matrix {
  const Element* data;
  int outputs, inputs, group_out, group_in, group, output, input;
};

DEVICE Element entry(const Matrix& m, int o, int i) {
  const int g = o / m.group_out, column = i - g * m.group_in;
  if (o >= m.outputs || i >= m.inputs || column < 0 || column >= m.group_in) return Element(0);
  return m.data[(long long)g * m.group + (o - g * m.group_out) * m.output + column * m.input];
}

// Word `word` of sixteen bytes of a lane, for outputs from `o` on, pair of tiles `pair`, inputs from `i` on.
DEVICE u32 operand(const Matrix& m, int o, int i, int pair, int lane, int word, int vector) {
  const int n = lane / 4;
  o += vector * (n / 2) + 4 * pair + word / 2 * 2 + n % 2;
  i += (word % 2 * 4 + lane % 4) * PER_WORD;
#if PRECISION == FP32 || PRECISION == TF32
  return as_word(entry(m, o, i));
#else
  return entry(m, o, i) | (u32)entry(m, o, i + 1) << 16;
#endif
}

// order: for each slot of the packed taps the index of its tap, four bits each; 15 is a slot of zeros.
KERNEL(THREADS, 1) lean_pack(
    const Element* __restrict__ centre, const Element* __restrict__ outer, u32* __restrict__ packed_centre,
    u32* __restrict__ packed_taps, int features, int channels, int centre_output, int centre_input,
    int group_in, int group_out, int outer_tap, int outer_group, int outer_output, int outer_input,
    int slice, int across, int chunk, int vector, int way, int band, int slots, int order_low, int order_high,
    int centre_words, int taps_words) {
  const int outputs = slice * across, chunks = (channels + chunk - 1) / chunk;
  const int fragments = chunk / FRAGMENT, pairs = slice / 16, part_pairs = vector / 4;
  const Matrix dense = {centre, features, channels, features, channels, 0, centre_output, centre_input};
  auto tap_of = [&](int slot) { return (slot < 8 ? order_low >> 4 * slot : order_high) & 15; };
  for (int i = blockIdx.x * THREADS + threadIdx.x; i < centre_words + taps_words; i += gridDim.x * THREADS) {
    if (i < centre_words) {  // [block of outputs][chunk][across][fragment][pair][lane][word]
      int rest = i / 128;
      const int pair = rest % pairs, k = (rest /= pairs) % fragments, warp = (rest /= fragments) % across;
        const int start = chunk * ((rest /= across) % chunks), block = rest / chunks;
      const int o = block * outputs + warp * slice + pair / part_pairs * 4 * vector;
      packed_centre[i] = operand(dense, o, start + k * FRAGMENT, pair % part_pairs, i / 4 % 32, i % 4, vector);
      continue;
    }
    const int j = i - centre_words;
    if (way == STENCIL) {  // [block of outputs][position][output], fp32
      const int f = j / (9 * outputs) * outputs + j % outputs, tap = tap_of(j / outputs % 9);
      packed_taps[j] = as_word(tap < 15 && f < features ? to_float(outer[tap * outer_tap + f * outer_group]) : 0.f);
      continue;
    }
    int rest = j / 128;  // [part of outputs][fragment of its band][slot][pair][lane][word]
    const int pair = rest % part_pairs, tap = tap_of((rest /= part_pairs) % slots), place = (rest /= slots) % band;
    const int o = rest / band * 4 * vector, first = o / group_out * group_in / FRAGMENT;
    const Matrix grouped = {outer + (long long)tap * outer_tap, features, channels, group_out, group_in, outer_group, outer_output, outer_input};
    packed_taps[j] = tap < 15 ? operand(grouped, o, (first + place) * FRAGMENT, pair, j / 4 % 32, j % 4, vector) : 0;
  }
}
