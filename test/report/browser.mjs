// test/report/browser.mjs CHROMIUM PAGE... -- opens pages in headless Chromium at a phone's and at a desktop's width, light
// and dark, and prints one line of TAP for each: no request but for the page itself, nothing said on the
// console, no sideways scrolling, no text over other text, a unit on every axis, text that stands out from its ground.
// The browser is spoken to through pipes (its DevTools protocol), so no package is needed. QRUN_SHOTS=PREFIX keeps what is
// seen as PREFIX-<page's number>-<width>-<scheme>.png.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const [chromium, ...pages] = process.argv.slice(2);
const shots = process.env.QRUN_SHOTS;
const profile = mkdtempSync(join(tmpdir(), 'qrun-browser-'));
const browser = spawn(chromium, ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage',
    '--disable-background-networking', '--disable-component-update', '--no-first-run', '--hide-scrollbars',
    `--user-data-dir=${profile}`, '--remote-debugging-pipe', 'about:blank'],
    { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });
const giveUp = setTimeout(() => end('the browser does not answer'), 120000);

function end(fault) {
    clearTimeout(giveUp);
    browser.kill('SIGKILL');
    try { rmSync(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 }); } catch { /* still being written */ }
    if (fault) console.log(`not ok ${count + 1} - ${fault}`);
    process.exit(fault || failed ? 1 : 0);
}

// ---- the protocol: JSON messages, each ended by a zero byte ----
let serial = 0, rest = '';
const waiting = new Map();
const seen = { requests: [], faults: [] };
browser.stdio[4].setEncoding('utf8');
browser.stdio[4].on('data', (chunk) => {
    const parts = (rest + chunk).split('\0');
    rest = parts.pop();
    parts.forEach((text) => receive(JSON.parse(text)));
});
browser.on('error', (e) => end(`${chromium}: ${e.message}`));

let loaded = () => {};
function receive(m) {
    if (m.id) {
        const { done, fail } = waiting.get(m.id);
        waiting.delete(m.id);
        return m.error ? fail(new Error(m.error.message)) : done(m.result);
    }
    if (m.method === 'Network.requestWillBeSent') seen.requests.push(m.params.request.url);
    if (m.method === 'Runtime.exceptionThrown') seen.faults.push(m.params.exceptionDetails.text);
    if (m.method === 'Runtime.consoleAPICalled') seen.faults.push(`console.${m.params.type}`);
    if (m.method === 'Log.entryAdded') seen.faults.push(m.params.entry.text);
    if (m.method === 'Page.loadEventFired') loaded();
}
function send(method, params = {}, sessionId) {
    const id = ++serial;
    browser.stdio[3].write(JSON.stringify({ id, method, params, sessionId }) + '\0');
    return new Promise((done, fail) => waiting.set(id, { done, fail }));
}

// ---- what is looked at, inside the page; returns a list of faults ----
function look(dark) {
    const bad = [];
    const root = document.documentElement;
    if (root.scrollWidth > innerWidth) bad.push(`the page is ${root.scrollWidth} pixels wide`);

    // Text as it is seen: boxes of the lines of each text, cut by what scrolls or hides around it.
    const boxes = [];
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node; (node = walk.nextNode());) {
        const at = node.parentElement, text = node.data.trim();
        if (!text || at.closest('title, style, script') || at.closest('details:not([open]) > :not(summary)')) continue;
        const range = document.createRange();
        range.selectNodeContents(node);
        const group = at.closest('text, pre') || at;
        const clip = at.closest('.scroll, pre, figure');
        const frame = clip && clip.getBoundingClientRect();
        for (const r of range.getClientRects()) {
            const box = { group, text, l: r.left, r: r.right, t: r.top, b: r.bottom };
            if (clip && clip.tagName === 'FIGURE' && (r.left < frame.left || r.right > frame.right || r.top < frame.top || r.bottom > frame.bottom))
                bad.push(`cut off: "${text}"`);
            if (clip) { box.l = Math.max(box.l, frame.left); box.r = Math.min(box.r, frame.right); }
            if (box.r - box.l > 1 && box.b - box.t > 1) boxes.push(box);
            if (box.r > innerWidth + 1) bad.push(`beyond the edge: "${text}"`);
        }
    }
    boxes.sort((a, b) => a.t - b.t);
    boxes.forEach((a, i) => {
        for (let k = i + 1; k < boxes.length && boxes[k].t < a.b; k++) {
            const b = boxes[k];
            if (a.group === b.group) continue;
            const w = Math.min(a.r, b.r) - Math.max(a.l, b.l), h = Math.min(a.b, b.b) - Math.max(a.t, b.t);
            if (w > 2 && h > 0.3 * Math.min(a.b - a.t, b.b - b.t)) bad.push(`"${a.text}" over "${b.text}"`);
        }
    });

    // Axes: the y label is the turned text, the x label the last of class t at the bottom.
    const unit = /\([^()]+\)\s*$/;
    for (const svg of document.querySelectorAll('svg.qplot')) {
        const labels = [...svg.querySelectorAll('text.t[text-anchor="middle"]')].map((t) => t.textContent);
        if (labels.length < 2 || !labels.slice(0, 2).every((s) => unit.test(s)))
            bad.push(`"${svg.querySelector('title').textContent}": axis without a unit: ${labels.join(' | ')}`);
        const size = parseFloat(getComputedStyle(svg.querySelector('text.k')).fontSize) * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
        if (size < 8.5) bad.push(`"${svg.querySelector('title').textContent}": numbers of ${size.toFixed(1)} pixels`);
    }

    // Contrast of text and ground (WCAG), of the page and inside pictures.
    const light = (css) => {
        const v = css.match(/[\d.]+/g).slice(0, 3).map((x) => x / 255).map((x) => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
        return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2];
    };
    const contrast = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
    const ground = getComputedStyle(document.body).backgroundColor;
    if ((light(ground) < 0.5) !== dark) bad.push(`the ground is ${ground}`);
    for (const s of ['h1', '.note', 'th', 'td', 'summary', 'figcaption']) {
        const el = document.querySelector(s);
        if (el && contrast(getComputedStyle(el).color, ground) < 4.5) bad.push(`${s}: too little contrast`);
    }
    const back = document.querySelector('.qplot .b');
    for (const s of back ? ['.h', '.t', '.k'] : []) {
        const c = contrast(getComputedStyle(document.querySelector(`.qplot ${s}`)).fill, getComputedStyle(back).fill);
        if (c < 4.5) bad.push(`pictures, ${s}: contrast of ${c.toFixed(1)}`);
    }
    return { bad, svgs: document.querySelectorAll('svg.qplot').length, texts: boxes.length };
}

// ---- the runs ----
let count = 0, failed = 0;
async function open(session, page, width, scheme) {
    const url = pathToFileURL(resolve(page)).href;
    const height = width < 600 ? 844 : 800;
    seen.requests.length = seen.faults.length = 0;
    await send('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: 1, mobile: width < 600 }, session);
    await send('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: scheme }] }, session);
    const done = new Promise((f) => { loaded = f; });
    await send('Page.navigate', { url }, session);
    await done;
    const { result, exceptionDetails } = await send('Runtime.evaluate',
        { expression: `(${look})(${scheme === 'dark'})`, returnByValue: true }, session);
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    const { bad, svgs, texts } = result.value;
    const away = seen.requests.filter((r) => r !== url && !r.startsWith('data:'));
    bad.push(...away.map((r) => `request to ${r}`), ...seen.faults);
    const title = `${page}, ${width} pixels, ${scheme}: ${svgs} pictures, ${texts} pieces of text`;
    count++;
    console.log(`${bad.length ? 'not ok' : 'ok'} ${count} - ${title}`);
    bad.slice(0, 20).forEach((b) => console.log(`# ${b}`));
    failed += bad.length > 0;
    if (!shots) return;
    const { cssContentSize } = await send('Page.getLayoutMetrics', {}, session);
    const { data } = await send('Page.captureScreenshot', { format: 'png', captureBeyondViewport: true,
        clip: { x: 0, y: 0, width, height: Math.min(cssContentSize.height, 16000), scale: 1 } }, session);
    writeFileSync(`${shots}-${pages.indexOf(page)}-${width}-${scheme}.png`, Buffer.from(data, 'base64'));
}

try {
    const { targetId } = await send('Target.createTarget', { url: 'about:blank' });
    const { sessionId } = await send('Target.attachToTarget', { targetId, flatten: true });
    for (const domain of ['Page', 'Network', 'Runtime', 'Log']) await send(`${domain}.enable`, {}, sessionId);
    for (const page of pages)
        for (const width of [390, 1280])
            for (const scheme of ['light', 'dark']) await open(sessionId, page, width, scheme);
    end();
} catch (e) {
    end(e.message);
}
