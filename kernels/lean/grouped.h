// Taps of groups of channels on the tensor cores: a tap is the same pixels moved, so its product reads the
// same tile. Of each part of the outputs only the fragments of inputs that its groups touch are computed.
#pragma once

// taps: [part of all outputs][band][tap][pair of tiles][lane] of 16 bytes. The outputs of a part, from
// channel f on, are fed by the `band` fragments from that of channel f / group_out * group_in on.
DEVICE void add_grouped(Sums& sums, const char* tile, const uint4* taps, int slice, int chunk, int positions, int group_in, int group_out, int band, int down, int lane) {
  int count = 0;
  for (int position = 0; position < 9; position++) count += positions >> position & 1;
#pragma unroll
  for (int part = 0; part < PARTS; part++) {
    const int index = slice * PARTS + part;
    const int first = index * 4 * VECTOR / group_out * group_in / FRAGMENT;
#pragma unroll 1
    for (int k = 0; k < FRAGMENTS; k++) {
      const int place = chunk * FRAGMENTS + k - first;
      if (place < 0 || place >= band) continue;
      const uint4* words = taps + ((long long)index * band + place) * count * (VECTOR / 4) * 32 + lane;
#pragma unroll 1
      for (int position = 0; position < 9; position++) {
        if (!(positions >> position & 1)) continue;
        u32 a[2][4];
        load_pixels<Input>(a, tile, Input::HALO + 2 * down, position / 3 - 1, position % 3 - 1, k, lane);
#pragma unroll
        for (int pair = 0; pair < VECTOR / 4; pair++, words += 32) {
          const uint4 word = *words;
          const u32 b[4] = {word.x, word.y, word.z, word.w};
          for (int j = 0; j < 2; j++)
            for (int m = 0; m < 2; m++) multiply(sums[m][part * (VECTOR / 2) + 2 * pair + j], a[m], b + 2 * j);
        }
      }
    }
  }
}
