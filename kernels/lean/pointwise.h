// The 1 x 1 part of a chunk: 32 pixels x CHUNK inputs times CHUNK x SLICE weights.
#pragma once

// weights: for each fragment of inputs and each pair of tiles of outputs, 16 bytes a lane, the operands b
// of both tiles: loads without a conflict.
DEVICE void add_pointwise(Sums& sums, const char* tile, const char* weights, int down, int lane) {
  lane = recomputed(lane);
#pragma unroll
  for (int k = 0; k < FRAGMENTS; k++) {
    u32 a[2][4];
    load_pixels<Input>(a, tile, Input::HALO + 2 * down, 0, 0, k, lane);
#pragma unroll
    for (int pair = 0; pair < TILES / 2; pair++) {
      const uint4 word = *(const uint4*)(weights + ((k * (TILES / 2) + pair) * 32 + lane) * 16);
      const u32 b[4] = {word.x, word.y, word.z, word.w};
      for (int j = 0; j < 2; j++)
        for (int m = 0; m < 2; m++) multiply(sums[m][2 * pair + j], a[m], b + 2 * j);
    }
  }
}
