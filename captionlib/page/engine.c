// The arithmetic of a captioner, for WebAssembly with SIMD: `make wasm` writes engine.wasm.
//
// Every matrix lies in panels of 8 output channels, [out / 8][in][8], so that
// one step along `in` loads 8 neighbouring weights. `out` is a multiple of 8:
// the packer fills up with zeros. Pictures lie channels last, [row][column][channel].

#include <stdint.h>
#include <wasm_simd128.h>

#define EXPORT(name) __attribute__((export_name(name)))
#define INLINE static inline __attribute__((always_inline))

enum { PANEL = 8, TILE = 64 };

INLINE v128_t load(const float *x) { return wasm_v128_load(x); }
INLINE v128_t times_plus(v128_t a, v128_t b, v128_t sum) {
  return wasm_f32x4_add(sum, wasm_f32x4_mul(a, b));
}
INLINE void store_clamped(float *y, v128_t sum, v128_t low, v128_t high) {
  wasm_v128_store(y, wasm_f32x4_pmin(high, wasm_f32x4_pmax(low, sum)));
}

// `count` rows times one panel. `count` is a constant wherever this is inlined,
// so the sums stay in registers.
INLINE void rows_times_panel(int count, const float *x, const float *w,
                             const float *bias, float *y, int in, int out,
                             v128_t low, v128_t high) {
  v128_t left[4], right[4];
  for (int r = 0; r < count; r++) left[r] = load(bias), right[r] = load(bias + 4);
  for (int k = 0; k < in; k++, w += PANEL) {
    v128_t w_left = load(w), w_right = load(w + 4);
    for (int r = 0; r < count; r++) {
      v128_t value = wasm_v128_load32_splat(x + r * in + k);
      left[r] = times_plus(value, w_left, left[r]);
      right[r] = times_plus(value, w_right, right[r]);
    }
  }
  for (int r = 0; r < count; r++) {
    store_clamped(y + r * out, left[r], low, high);
    store_clamped(y + r * out + 4, right[r], low, high);
  }
}

// A linear layer, or a 1x1 convolution, which is the same at every pixel:
// y (rows, out) = clamp(x (rows, in) · w + bias). Goes through the weights once
// for each tile of rows, which stays in the cache meanwhile.
EXPORT("pointwise")
void pointwise(const float *x, const float *w, const float *bias, float *y,
               int rows, int in, int out, float lowest, float highest) {
  v128_t low = wasm_f32x4_splat(lowest), high = wasm_f32x4_splat(highest);
  for (int top = 0; top < rows; top += TILE) {
    int end = top + TILE < rows ? top + TILE : rows;
    for (int n = 0; n < out; n += PANEL) {
      const float *panel = w + n * in;
      int r = top;
      for (; r + 4 <= end; r += 4)
        rows_times_panel(4, x + r * in, panel, bias + n, y + r * out + n, in, out, low, high);
      for (; r < end; r++)
        rows_times_panel(1, x + r * in, panel, bias + n, y + r * out + n, in, out, low, high);
    }
  }
}

// A depthwise convolution: each channel has a filter of its own. `before` rows
// and columns of zeros are thought above and to the left, as many as needed
// below and to the right.
EXPORT("depthwise")
void depthwise(const float *x, const float *w, const float *bias, float *y,
               int side, int channels, int kernel, int stride, int before,
               float lowest, float highest) {
  v128_t low = wasm_f32x4_splat(lowest), high = wasm_f32x4_splat(highest);
  int out = (side + stride - 1) / stride;
  for (int row = 0; row < out; row++)
    for (int c = 0; c < channels; c += PANEL)
      for (int column = 0; column < out; column++) {
        const float *filter = w + c * kernel * kernel;
        v128_t left = load(bias + c), right = load(bias + c + 4);
        for (int i = 0; i < kernel; i++) {
          int from_row = row * stride - before + i;
          if (from_row < 0 || from_row >= side) continue;
          for (int j = 0; j < kernel; j++) {
            int from_column = column * stride - before + j;
            if (from_column < 0 || from_column >= side) continue;
            const float *pixel = x + (from_row * side + from_column) * channels + c;
            const float *tap = filter + (i * kernel + j) * PANEL;
            left = times_plus(load(pixel), load(tap), left);
            right = times_plus(load(pixel + 4), load(tap + 4), right);
          }
        }
        float *to = y + (row * out + column) * channels + c;
        store_clamped(to, left, low, high);
        store_clamped(to + 4, right, low, high);
      }
}

// x += y: a block's shortcut. `count` is a multiple of 4.
EXPORT("add")
void add(float *x, const float *y, int count) {
  for (int i = 0; i < count; i += 4)
    wasm_v128_store(x + i, wasm_f32x4_add(load(x + i), load(y + i)));
}

// Decode whole numbers -127 to 127 in panels, each channel with its own scale.
EXPORT("from_int8")
void from_int8(const int8_t *codes, const float *scale, float *w, int in, int out) {
  for (int n = 0; n < out; n += PANEL)
    for (int k = 0; k < in; k++)
      for (int lane = 0; lane < PANEL; lane++) *w++ = *codes++ * scale[n + lane];
}

// Decode IEEE half-precision numbers (finite ones: weights).
EXPORT("from_float16")
void from_float16(const uint16_t *codes, float *w, int count) {
  for (int i = 0; i < count; i++) {
    union { uint32_t bits; float value; } number;
    number.bits = (uint32_t)(codes[i] & 0x7fff) << 13;
    number.value *= 0x1p112f;  // corrects the exponent, also of subnormal numbers
    number.bits |= (uint32_t)(codes[i] & 0x8000) << 16;
    w[i] = number.value;
  }
}
