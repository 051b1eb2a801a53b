// Sums over sliding cuboids alone, channels last: of a map, or transposed (see sums.h).
//
// (N, H, W, g C) -> (N, H', W', g C'): a block makes TILE_H x 16 places of one group, chunk after chunk; the
// next chunk is on its way while this one is summed and written. Reads depth > 1 channels twice (the second
// time from L2), writes once.
constexpr int TILE_W = 16, STRIDE = 1, TAPS = 1;
#include "sums.h"

KERNEL(THREADS, BLOCKS)
pool(const char* __restrict__ x, char* __restrict__ y, int height, int width, int channels, int out_height,
     int out_width, int outputs, int groups, int filled, int enter, int leave, int padding, int deep, float scale) {
  SHARED_MEMORY(memory);
  int tiles_w = (out_width + TILE_W - 1) / TILE_W, tiles = (out_height + TILE_H - 1) / TILE_H * tiles_w;
  int group = blockIdx.x % groups, tile = blockIdx.x / groups % tiles, image = blockIdx.x / groups / tiles;
  int top = tile / tiles_w * TILE_H, left = tile % tiles_w * TILE_W;
  int group_channels = channels / groups, group_outputs = outputs / groups;
  int chunks = (group_outputs + CHUNK - 1) / CHUNK, filling = (filled + CHUNK - 1) / CHUNK;

  char* sums = memory + 2 * (1 + deep) * RAW_BYTES;
  Source source = {x + ((long long)image * height * width * channels + group * group_channels) * ELEMENT_BYTES,
                   height, width, channels * ELEMENT_BYTES, top - padding, left - padding};
  y += ((long long)image * out_height * out_width * outputs + group * group_outputs) * ELEMENT_BYTES;

  auto buffer = [&](int step) { return memory + step % 2 * (1 + deep) * RAW_BYTES; };
  auto load_step = [&](int step) {
    int k = step - filling;
    if (k < 0) load_raw(buffer(step), source, step * CHUNK, filled);
    else load_raw(buffer(step), source, k * CHUNK + enter, group_channels);
    if (k >= 0 && deep) load_raw(buffer(step) + RAW_BYTES, source, k * CHUNK + leave, least(group_channels, group_outputs));
    copy_commit();
  };

  Windows windows;
  clear(windows);
  load_step(0);
  for (int step = 0; step < filling + chunks; step++) {
    int k = step - filling;
    if (step + 1 < filling + chunks) { load_step(step + 1); copy_wait<1>(); }
    else copy_wait<0>();
    __syncthreads();  // this chunk is here; the sums before are written
    if (k < 0) fill_windows(windows, buffer(step), least(SEGMENTS, segments_of(filled) - step * SEGMENTS));
    else {
      int segments = least(SEGMENTS, segments_of(group_outputs) - k * SEGMENTS);
      slide_windows(windows, buffer(step), 0, buffer(step) + RAW_BYTES, 0, sums, segments, deep, scale);
    }
    __syncthreads();  // the sums are here; this chunk's buffer is free
    if (k < 0) continue;
    constexpr int PIECES = ROW / COPY;
    for (int i = threadIdx.x; i < SUM_PIXELS * PIECES; i += THREADS) {
      int row = i / PIECES, byte = i % PIECES * COPY;
      int h = top + row / SUM_W, w = left + row % SUM_W, channel = k * CHUNK + byte / ELEMENT_BYTES;
      if (h >= out_height || w >= out_width || channel >= group_outputs) continue;
      const char* from = sums + place(row, byte / 16) + byte % 16;
      char* to = y + (((long long)h * out_width + w) * outputs + channel) * ELEMENT_BYTES;
      if (COPY == 16) *(uint4*)to = *(const uint4*)from;
      else if (COPY == 8) *(uint2*)to = *(const uint2*)from;
      else if (COPY == 4) *(u32*)to = *(const u32*)from;
      else *(u16*)to = *(const u16*)from;
    }
  }
}
