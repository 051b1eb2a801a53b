// Structured convolution in one pass, channels last: Y = alpha * (sums of X over cuboids).
//
// A block goes from tile to tile (16 pixels wide) of all images. Of a tile it makes all outputs of a group or a
// share of them (`splits`), in stages of CHUNK channels of the sums: a raw chunk comes by cp.async,
// `slide_windows` sums it into shared memory, and the TAPS x TAPS taps are products of shifted rows of the
// sums with packed weights on tensor cores. The next raw chunk, or the next tile's first, is on its way during
// the products, weights during sums or products. One or two stages of weights stay for good.
// Where a block makes several blocks of BN outputs, the sums of all chunks stay in shared memory (`slots`):
// X is read and summed once. With `whole` all channels of a group lie in shared memory at once (`raw_slots`
// chunks); otherwise the channels that leave a window come a second time, from L2. Y is written once.
//
// Sums are kept as Element, so scaled by a power of two near 1 / sqrt(depth SIDE^2), undone at the end: a
// 16-bit sum neither overflows nor vanishes before its summands do.
//
// weights: [group][split][block][chunk][tap][BN][CHUNK], zeros where c or F ends.
constexpr int TILE_W = 16;
#include "sums.h"

constexpr int WARPS_M = TILE_H / MT, WARPS_N = THREADS / 32 / WARPS_M;
constexpr int WARP_N = BN / WARPS_N, NT = WARP_N / 8;
constexpr int STAGE_ROWS = TAPS * TAPS * BN, STAGE_BYTES = STAGE_ROWS * ROW;
constexpr int TAPS_AT_ONCE = PRECISION == FP32 || TAPS > 2 ? 1 : TAPS * TAPS;

DEVICE void load_weights(char* stage, const char* weights, int index) {
  const char* from = weights + (long long)index * STAGE_BYTES;
#pragma unroll 1
  for (int i = threadIdx.x; i < STAGE_ROWS * SEGMENTS; i += THREADS)
    copy_async_16(stage + place(i / SEGMENTS, i % SEGMENTS), from + i * 16, true);
}

typedef float Sums[MT][NT][4];

DEVICE void clear(Sums& sums) {
#pragma unroll
  for (int m = 0; m < MT; m++)
#pragma unroll
    for (int n = 0; n < NT; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) sums[m][n][i] = 0.f;
}

// Row i of product m is the pixel (warp's row m, column i); tap (ty, tx) moves it by whole rows of the tile.
DEVICE void multiply_stage(Sums& out, const char* sums, const char* weights) {
  int thread = this_thread(), lane = thread % 32, warp = thread / 32;
  int first_row = warp / WARPS_N * MT, first_output = warp % WARPS_N * WARP_N;
#pragma unroll TAPS_AT_ONCE
  for (int tap = 0; tap < TAPS * TAPS; tap++) {
    int ty = tap / TAPS, tx = tap % TAPS;
#pragma unroll 1
    for (int k = 0; k < ROW / FRAGMENT_BYTES; k++) {
      u32 a[MT][4];
#pragma unroll
      for (int m = 0; m < MT; m++) {
        int row = ((first_row + m) * STRIDE + ty) * SUM_W + lane % 16 * STRIDE + tx;
        load_matrices(a[m], sums + place(row, 2 * k + lane / 16));
      }
#pragma unroll
      for (int n = 0; n < NT; n += 2) {
        u32 b[4];
        int row = tap * BN + first_output + n * 8 + lane % 8 + lane / 16 * 8;
        load_matrices(b, weights + place(row, 2 * k + lane / 8 % 2));
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
          for (int j = 0; j < 2; j++) multiply(out[m][n + j], a[m], b + 2 * j);
      }
    }
  }
}

// Two neighbouring lanes swap words so that each holds four neighbouring channels of one of two products.
DEVICE void store_quad(Element* to, float a0, float a1, float b0, float b1) {
  if (ELEMENT_BYTES == 4) *(float4*)to = make_float4(a0, a1, b0, b1);
  else {
    u32 word[2];
    store_pair((Element*)&word[0], a0, a1);
    store_pair((Element*)&word[1], b0, b1);
    *(uint2*)to = make_uint2(word[0], word[1]);
  }
}
DEVICE void store_pixel(Element* y, const float* near, const float* far, int lane, int left, bool inside, float factor) {
  // near, far: channels 2 (lane % 4) and the next, of products n and n + 1. left: outputs from product n on.
  int odd = lane % 2;
  float give0 = odd ? near[0] : far[0], give1 = odd ? near[1] : far[1];
  float keep0 = odd ? far[0] : near[0], keep1 = odd ? far[1] : near[1];
  float got0 = __shfl_xor_sync(~0u, give0, 1), got1 = __shfl_xor_sync(~0u, give1, 1);
  float v[4] = {odd ? got0 : keep0, odd ? got1 : keep1, odd ? keep0 : got0, odd ? keep1 : got1};
  int channel = 8 * odd + lane % 4 / 2 * 4;
  if (!inside) return;
  for (int i = 0; i < 4; i++) v[i] *= factor;
  if (WHOLE_QUADS) {
    if (channel < left) store_quad(y + channel, v[0], v[1], v[2], v[3]);
  } else {
    for (int i = 0; i < 4; i++)
      if (channel + i < left) y[channel + i] = to_element(v[i]);
  }
}

// What can be a constant of the launch is an argument, so that it takes no register: tiles of an image and of
// a row of it, units = groups x splits, chunks of sums and of the channels that fill the first window.
KERNEL(THREADS, BLOCKS)
structured(const char* __restrict__ x, const char* __restrict__ weights, Element* __restrict__ y, int all_tiles, int tiles,
           int tiles_w, int units, int height, int width, int channels, int group_channels, int out_height, int out_width,
           int outputs, int group_outputs, int kept, int depth, int padding, int splits, int blocks, int chunks, int filling,
           int slots, int raw_slots, int whole, float scale, float factor) {
  SHARED_MEMORY(memory);
  // units of a tile are neighbours in time, so that they find the tile in L2
  const int unit = blockIdx.x % units, group = unit / splits, split = unit % splits;
  const int first_tile = blockIdx.x / units, next_tile = gridDim.x / units;
  const int total = blocks * chunks, steps = filling + chunks;

  char* entering = memory;
  char* leaving = whole ? entering : entering + RAW_BYTES;
  char* stage = entering + raw_slots * RAW_BYTES;
  char* sums = stage + (total > 1 ? 2 : 1) * STAGE_BYTES;
  weights += (long long)unit * total * STAGE_BYTES;

  auto source_of = [&](int tile) {
    int top = tile % tiles / tiles_w * TILE_H, left = tile % tiles % tiles_w * TILE_W;
    const char* map = x + ((long long)(tile / tiles) * height * width * channels + group * group_channels) * ELEMENT_BYTES;
    return Source{map, height, width, channels * ELEMENT_BYTES, top * STRIDE - padding, left * STRIDE - padding};
  };
  auto load_step = [&](const Source& source, int step) {
    int k = step - filling;
    if (whole) {
      for (int slot = 0; slot < raw_slots; slot++) load_raw(entering + slot * RAW_BYTES, source, slot * CHUNK, group_channels);
    } else {
      load_raw(entering, source, k < 0 ? step * CHUNK : k * CHUNK + depth - 1, k < 0 ? depth - 1 : group_channels);
      if (k >= 0 && depth > 1) load_raw(leaving, source, k * CHUNK, kept);
    }
  };
  auto store = [&](Sums& out, int tile, int block) {
    int thread = this_thread(), lane = thread % 32, warp = thread / 32;
    int output = (split * blocks + block) * BN + warp % WARPS_N * WARP_N;
    int top = tile % tiles / tiles_w * TILE_H, left = tile % tiles % tiles_w * TILE_W;
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
      for (int half = 0; half < 2; half++) {
        int h = top + warp / WARPS_N * MT + m, w = left + lane / 4 + 8 * half;
        bool inside = h < out_height && w < out_width;
        Element* pixel = y + (((long long)(tile / tiles) * out_height + h) * out_width + w) * outputs + group * group_outputs + output;
#pragma unroll
        for (int n = 0; n < NT; n += 2)
          store_pixel(pixel + n * 8, out[m][n] + 2 * half, out[m][n + 1] + 2 * half, lane, group_outputs - output - n * 8, inside, factor);
      }
  };

  int used = 0;  // stages of weights so far; they alternate between two buffers
  auto weights_of = [&](int use) { return stage + (total > 1 ? use % 2 : 0) * STAGE_BYTES; };
  auto load_next_weights = [&](int index, bool first, bool more) {
    bool last = index + 1 == total;
    if (total > 2 ? !last || more : !last && first) load_weights(weights_of(used + 1), weights, last ? 0 : index + 1);
  };

  Source source = source_of(first_tile);
  load_step(source, 0);
  load_weights(stage, weights, 0);
  copy_commit();
  for (int tile = first_tile; tile < all_tiles; tile += next_tile) {
    const bool first = tile == first_tile, more = tile + next_tile < all_tiles;
    Windows windows;
    clear(windows);
    for (int block = 0; block < blocks; block++) {
      Sums out;
      clear(out);
#pragma unroll 1
      for (int step = block ? filling : 0; step < steps; step++) {
        const int k = step - filling;
        char* slot = sums + (k < 0 ? 0 : k % slots) * SUM_BYTES;
        copy_wait<0>();
        __syncthreads();  // raw chunk and weights are here; products of the stage before are done
        if (block == 0) {
          if (k < 0) fill_windows(windows, entering, least(SEGMENTS, segments_of(depth - 1) - step * SEGMENTS));
          else {
            if (whole && k == 0) fill_windows(windows, entering, (depth - 1) / SEGMENT);
            int enter = whole ? k * SEGMENTS + (depth - 1) / SEGMENT : 0, leave = whole ? k * SEGMENTS : 0;
            slide_windows(windows, entering, enter, leaving, leave, slot, least(SEGMENTS, segments_of(kept) - k * SEGMENTS), depth > 1, scale);
          }
          __syncthreads();  // the sums are here; the raw chunk is free
          if (step + 1 < steps) {
            if (!whole) load_step(source, step + 1);
          } else if (more) {
            source = source_of(tile + next_tile);
            load_step(source, 0);
          }
        }
        if (k >= 0) load_next_weights(block * chunks + k, first, more);
        copy_commit();
        if (k >= 0) multiply_stage(out, slot, weights_of(used++));
      }
      store(out, tile, block);
    }
  }
}
