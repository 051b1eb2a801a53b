// What the implicit step multiplies the spectrum by: 1 / (H W (1 + step |K^|^2)), at every frequency
// (row, column) and channel, channels last and padded to an even number. K^ is summed from its taps.
#include "device.h"

KERNEL(256, 4)
symbol(const float* __restrict__ taps, const float2* __restrict__ row_roots, const float2* __restrict__ column_roots,
       float* __restrict__ out, float step, int height, int width, int channels, int side) {
  int padded = channels + channels % 2, i = blockIdx.x * 256 + threadIdx.x;
  if (i >= padded * width * height) return;
  int channel = i % padded, column = i / padded % width, row = i / padded / width;
  if (channel >= channels) {
    out[i] = 0.f;
    return;
  }
  const float* tap = taps + channel * side * side;
  float re = 0.f, im = 0.f;  // up to a phase, which |K^| does not see
  for (int y = 0; y < side; y++) {
    float line_re = 0.f, line_im = 0.f;
    for (int x = 0; x < side; x++) {
      float2 root = column_roots[column * x % width];
      line_re += tap[y * side + x] * root.x;
      line_im += tap[y * side + x] * root.y;
    }
    float2 root = row_roots[row * y % height];
    re += line_re * root.x - line_im * root.y;
    im += line_re * root.y + line_im * root.x;
  }
  out[i] = 1.f / (float(height * width) * (1.f + step * (re * re + im * im)));
}
