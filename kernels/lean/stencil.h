// Depthwise taps of a chunk in fp32 arithmetic: each value of a halo row is loaded once for up to three taps.
#pragma once

static_assert(PARTS == 1 || Input::SEGMENTS == 8, "the parts of a lane differ in bit 2 of the segment");

// One row of the stencil. Bit d of the pattern: pixel p of the group (p = 0..3) takes weight row d times
// the value at offset at[p + d] of the tile.
template <int pattern> DEVICE void add_stencil_row(Sums& sums, const char* tile, const int* at, const float* weights, int lane) {
#pragma unroll
  for (int part = 0; part < PARTS; part++) {
    if (PARTS > 1) __syncwarp();  // keeps the loads of the parts apart, which otherwise spill
    float w[3][VECTOR];
#pragma unroll
    for (int d = 0; d < 3; d++)
      if (pattern >> d & 1)
        for (int v = 0; v < VECTOR; v += 4) {
          const float4 four = *(const float4*)(weights + d * OUTPUTS + (part * 4 + lane % 4) * VECTOR + v);
          w[d][v] = four.x, w[d][v + 1] = four.y, w[d][v + 2] = four.z, w[d][v + 3] = four.w;
        }
#pragma unroll
    for (int i = 0; i < (pattern == 1 ? 4 : 6); i++) {
      float value[VECTOR];
      load_vector<VECTOR>(value, (const Element*)(tile + (at[i] ^ part * 4 * SEGMENT_BYTES)));
#pragma unroll
      for (int d = 0; d < 3; d++) {
        const int p = i - d;
        if ((pattern >> d & 1) && p >= 0 && p < 4)
          for (int v = 0; v < VECTOR; v++) sum_at(sums, p, part, v) += w[d][v] * value[v];
      }
    }
  }
}

// own: the first channel of the warp within the chunk. weights: (9, OUTPUTS) in fp32, in shared memory.
// positions: bit 3 (dy + 1) + dx + 1 of the taps that there are; the centre belongs to the 1 x 1 part, so
// that a full row has two or three.
DEVICE void add_stencil(Sums& sums, const char* tile, int own, const float* weights, int positions, int down, int lane) {
  lane = recomputed(lane);
  const int group = lane / 4, row = 2 * down + group / 4, column = 4 * (group % 4);
  const int byte = (own + lane % 4 * VECTOR) * ELEMENT_BYTES;
  int first[6];  // offsets in the upper row of the stencil
  for (int i = 0; i < 6; i++) first[i] = tile_offset<Input>(row, column + i, byte / SEGMENT_BYTES) + byte % SEGMENT_BYTES;
#pragma unroll 1
  for (int dy = 0; dy < 3; dy++) {
    const int pattern = positions >> 3 * dy & 7;
    const float* weight = weights + 3 * dy * OUTPUTS;
    int at[6];
    for (int i = 0; i < 6; i++) at[i] = tile_below<Input>(first[i], dy);
    if ((pattern & 5) == 5) {
      add_stencil_row<7>(sums, tile, at, weight, lane);
    } else {
      if (pattern & 1) add_stencil_row<1>(sums, tile, at, weight, lane);
      if (pattern & 2) add_stencil_row<1>(sums, tile, at + 1, weight + OUTPUTS, lane);
      if (pattern & 4) add_stencil_row<1>(sums, tile, at + 2, weight + 2 * OUTPUTS, lane);
    }
  }
}
