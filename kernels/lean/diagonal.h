// Depthwise taps of 16-bit numbers on the tensor cores: of each tap a diagonal 16 x 16 matrix, kept in
// registers over all tiles. Five fragments of pixels a row serve its three taps: pixel 2 t + m / 8 of a
// group, moved by dx = 0, 1, 2 columns, is number s = 2 t + dx. By count 4 to 5 instructions an output,
// where the arithmetic of stencil.h takes 16 to 20; the products, of which a 16th is not zero, hide
// behind memory up to 64 channels.
#pragma once
static_assert(SLICE == 16 && FRAGMENT == 16, "one fragment of 16 channels is the warp's own");

struct Diagonal {
  u32 b[9][4];  // operands of both tiles for each position
  int at[5];    // of fragment s in the first row of the stencil
};

// taps: [slice][9][lane] of 16 bytes. own: the first channel of the warp within a chunk.
DEVICE void prepare_diagonal(Diagonal& diagonal, const uint4* taps, int slice, int own, int down, int lane) {
#pragma unroll
  for (int position = 0; position < 9; position++) {
    const uint4 word = taps[(slice * 9 + position) * 32 + lane];
    u32* b = diagonal.b[position];
    b[0] = word.x, b[1] = word.y, b[2] = word.z, b[3] = word.w;
  }
  const int group = lane % 8, half = lane / 8 % 2;
#pragma unroll
  for (int s = 0; s < 5; s++)
    diagonal.at[s] = tile_offset<Input>(2 * down + group / 4, 4 * (group % 4) + half + s, own / SEGMENT + lane / 16);
}

DEVICE void add_diagonal(Sums& sums, const char* tile, const Diagonal& diagonal, int positions) {
#pragma unroll
  for (int dy = 0; dy < 3; dy++) {
    const int pattern = positions >> 3 * dy & 7;
    u32 a[5][4];
#pragma unroll
    for (int s = 0; s < 5; s++)
      if (pattern & (s % 2 ? 2 : 5)) load_matrices(a[s], tile + tile_below<Input>(diagonal.at[s], dy));
#pragma unroll
    for (int dx = 0; dx < 3; dx++)
      if (pattern >> dx & 1)
        for (int j = 0; j < 2; j++)
          for (int t = 0; t < 2; t++) multiply(sums[t][j], a[2 * t + dx], diagonal.b[3 * dy + dx] + 2 * j);
  }
}
