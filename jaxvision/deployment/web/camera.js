// The camera, frame by frame, each as soon as the one before is done.
//   onFrame(video): a promise; onStop(): the camera is off, by the user or by itself.
function makeCamera(video, {onFrame, onStart, onStop, onProblem}) {
  let stream = null;
  let times = [];

  const problems = {
    NotAllowedError: 'The camera was not allowed. Allow it for this page in the settings of the browser, then start it again.',
    NotFoundError: 'There is no camera.',
    NotReadableError: 'The camera is in use by another program.',
    OverconstrainedError: 'This camera is gone. Choose another.',
  };

  async function start(deviceId) {
    stop();
    if (!navigator.mediaDevices?.getUserMedia) {
      onProblem('Browsers give the camera to pages from https and from this computer (localhost) alone, and this page is neither.');
      return;
    }
    const wanted = deviceId ? {deviceId: {exact: deviceId}} : {facingMode: {ideal: 'environment'}};
    let opened;
    try {
      opened = await navigator.mediaDevices.getUserMedia({
        video: {...wanted, width: {ideal: 640}, height: {ideal: 480}}, audio: false,
      });
      stream = opened;
      video.srcObject = opened;
      await video.play();
    } catch (error) {
      stop();
      onProblem(problems[error.name] ?? `The camera did not start. ${sentence(error)}`);
      return;
    }
    const [track] = opened.getVideoTracks();
    track.addEventListener('ended', () => {
      if (stream !== opened) return;
      stop();
      onProblem('The camera was disconnected.');
    });
    times = [];
    const devices = await navigator.mediaDevices.enumerateDevices();
    onStart(devices.filter(({kind}) => kind === 'videoinput'), track.getSettings().deviceId);
    while (stream === opened) {
      await nextFrame();
      if (stream !== opened || !video.videoWidth) continue;
      try {
        await onFrame(video);
      } catch (error) {
        stop();
        onProblem(sentence(error));
      }
      times.push(performance.now());
    }
  }

  function nextFrame() {
    return new Promise((resolve) => {
      // A stopped video has no next frame, and then the timer ends the wait.
      const timer = setTimeout(resolve, 500);
      const go = () => { clearTimeout(timer); resolve(); };
      if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(go);
      else requestAnimationFrame(go);
    });
  }

  function stop() {
    if (!stream) return;
    const stopped = stream;
    stream = null;
    for (const track of stopped.getTracks()) track.stop();
    video.srcObject = null;
    onStop();
  }

  // Frames that went through the network per second, over the last two seconds.
  function rate() {
    const now = performance.now();
    times = times.filter((time) => now - time < 2000);
    return times.length < 2 ? null : (times.length - 1) * 1000 / (times.at(-1) - times[0]);
  }

  return {start, stop, rate, running: () => stream !== null};
}
