// Gradient of alpha: d alpha[f, j, t] = sum over the pixels p of dY[p, f] sums[stride p + t, j].
//
// A product per tap with the pixels as its inner dimension: BM outputs x BJ channels of the sums per block, a
// warp 16 x 16 of them for TAP_ROWS rows of taps, so that a fragment of dY serves all its taps. A block goes
// through every `splits`-th tile of 8 x 16 pixels of all images; two stages of cp.async. It writes one fp32
// partial gradient; the launcher adds those up in a fixed order.
//
// Rows in shared memory are padded so that eight rows (ldmatrix, 16 bit) or 4 rows x 8 words (32 bit) fall
// into different banks.
//
// partial: [split][group][output block][channel block][part][tap][BM][BJ]
#include "copies.h"
constexpr int TILE_H = 8, TILE_W = 16;
constexpr int SUM_H = (TILE_H - 1) * STRIDE + TAP_ROWS, SUM_W = (TILE_W - 1) * STRIDE + TAPS;
constexpr int PADDING = ELEMENT_BYTES == 2 ? 16 : 32;
constexpr int DY_PITCH = BM * ELEMENT_BYTES + PADDING, SUM_PITCH = BJ * ELEMENT_BYTES + PADDING;
constexpr int DY_BYTES = TILE_H * TILE_W * DY_PITCH, STAGE_BYTES = DY_BYTES + SUM_H * SUM_W * SUM_PITCH;
constexpr int TAP_COUNT = TAP_ROWS * TAPS;

// A tile of `tile_height` x `tile_width` pixels and `channels` channels; zeros outside the map and from `end` on.
template <int tile_height, int tile_width, int channels, int pitch>
DEVICE void load_tile(char* to, const char* map, int height, int width, int pixel_bytes, int top, int left, int end) {
  constexpr int PIECES = channels * ELEMENT_BYTES / COPY;
  for (int i = threadIdx.x; i < tile_height * tile_width * PIECES; i += THREADS) {
    int byte = i % PIECES * COPY, row = i / PIECES, h = top + row / tile_width, w = left + row % tile_width;
    bool inside = h < height && w < width && byte < end * ELEMENT_BYTES;
    long long offset = inside ? ((long long)h * width + w) * pixel_bytes + byte : 0;
    copy_piece(to + row * pitch + byte, map + offset, inside);
  }
}

#if PRECISION == BF16 || PRECISION == FP16
constexpr int STEPS = 1;  // of FRAGMENT pixels in a row of the tile
// 16 outputs x 16 pixels, and 16 pixels x 16 channels; both lie pixel by pixel.
DEVICE void outputs_fragment(u32* a, const char* dy, int lane) {
  load_matrices_transposed(a, dy + (lane % 8 + lane / 16 * 8) * DY_PITCH + lane / 8 % 2 * 16);
}
DEVICE void channels_fragment(u32* b, const char* sums, int lane) {
  load_matrices_transposed(b, sums + (lane % 8 + lane / 8 % 2 * 8) * STRIDE * SUM_PITCH + lane / 16 * 16);
}
#else
constexpr int STEPS = 2;
DEVICE void outputs_fragment(u32* a, const char* dy, int lane) {
#pragma unroll
  for (int i = 0; i < 4; i++) a[i] = *(const u32*)(dy + (lane % 4 + i / 2 * 4) * DY_PITCH + (lane / 4 + i % 2 * 8) * 4);
}
DEVICE void channels_fragment(u32* b, const char* sums, int lane) {
#pragma unroll
  for (int i = 0; i < 4; i++) b[i] = *(const u32*)(sums + (lane % 4 + i % 2 * 4) * STRIDE * SUM_PITCH + (lane / 4 + i / 2 * 8) * 4);
}
#endif

KERNEL(THREADS, BLOCKS)
gradient(const char* __restrict__ dy, const char* __restrict__ sums, float* __restrict__ partial, int images, int height,
         int width, int sum_height, int sum_width, int outputs, int kept, int groups, int output_blocks,
         int channel_blocks, int parts, int splits) {
  SHARED_MEMORY(memory);
  int units = groups * output_blocks * channel_blocks * parts;
  int unit = blockIdx.x % units, split = blockIdx.x / units;
  int part = unit % parts, j0 = unit / parts % channel_blocks * BJ;
  int f0 = unit / parts / channel_blocks % output_blocks * BM, group = unit / parts / channel_blocks / output_blocks;
  int tiles_w = (width + TILE_W - 1) / TILE_W, tiles = (height + TILE_H - 1) / TILE_H * tiles_w;
  int group_outputs = outputs / groups;
  dy += (long long)(group * group_outputs + f0) * ELEMENT_BYTES;
  sums += (long long)(group * kept + j0) * ELEMENT_BYTES;

  auto load = [&](int index, int buffer) {
    int image = index / tiles, top = index % tiles / tiles_w * TILE_H, left = index % tiles % tiles_w * TILE_W;
    char* stage = memory + buffer * STAGE_BYTES;
    load_tile<TILE_H, TILE_W, BM, DY_PITCH>(stage, dy + (long long)image * height * width * outputs * ELEMENT_BYTES, height,
                                            width, outputs * ELEMENT_BYTES, top, left, group_outputs - f0);
    load_tile<SUM_H, SUM_W, BJ, SUM_PITCH>(stage + DY_BYTES, sums + (long long)image * sum_height * sum_width * groups * kept * ELEMENT_BYTES,
                                           sum_height, sum_width, groups * kept * ELEMENT_BYTES, top * STRIDE + part * TAP_ROWS,
                                           left * STRIDE, kept - j0);
    copy_commit();
  };

  int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int warp_f = warp % (BM / 16) * 16, warp_j = warp / (BM / 16) * 16;
  float out[TAP_COUNT][2][4];
#pragma unroll
  for (int i = 0; i < TAP_COUNT * 8; i++) out[i / 8][i / 4 % 2][i % 4] = 0.f;

  int buffer = 0;
  load(split, 0);
  for (int index = split; index < images * tiles; index += splits, buffer ^= 1) {
    if (index + splits < images * tiles) { load(index + splits, buffer ^ 1); copy_wait<1>(); }
    else copy_wait<0>();
    __syncthreads();  // this stage is here
    const char* stage = memory + buffer * STAGE_BYTES;
#pragma unroll 1
    for (int y = 0; y < TILE_H; y++)
#pragma unroll
      for (int step = 0; step < STEPS; step++) {
        int x = step * FRAGMENT;
        u32 a[4];
        outputs_fragment(a, stage + (y * TILE_W + x) * DY_PITCH + warp_f * ELEMENT_BYTES, lane);
#pragma unroll
        for (int tap = 0; tap < TAP_COUNT; tap++) {
          int row = (y * STRIDE + tap / TAPS) * SUM_W + x * STRIDE + tap % TAPS;
          u32 b[4];
          channels_fragment(b, stage + DY_BYTES + row * SUM_PITCH + warp_j * ELEMENT_BYTES, lane);
          multiply(out[tap][0], a, b);
          multiply(out[tap][1], a, b + 2);
        }
      }
    __syncthreads();  // this stage is free
  }

  partial += ((long long)split * units + unit) * TAP_COUNT * BM * BJ;
#pragma unroll
  for (int tap = 0; tap < TAP_COUNT; tap++)
#pragma unroll
    for (int half = 0; half < 2; half++)
#pragma unroll
      for (int n = 0; n < 2; n++) {
        float* to = partial + (tap * BM + warp_f + lane / 4 + 8 * half) * BJ + warp_j + n * 8 + lane % 4 * 2;
        *(float2*)to = make_float2(out[tap][n][2 * half], out[tap][n][2 * half + 1]);
      }
}
